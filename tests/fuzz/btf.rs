//! Objects of anybody: a whole ELF file, or only the BTF in it, which mutations then hit more often.

#![no_main]

mod seeds;

use std::collections::BTreeSet;

use gadgets::btf::{Btf, Type, TypeId};
use gadgets::catalogue::CATALOGUE;
use gadgets::schema::Schema;
use libfuzzer_sys::fuzz_target;
use object::{Object as _, ObjectSection as _};

fuzz_target!(init: seeds::write(objects), |data: &[u8]| {
    if let Ok(btf) = Btf::from_object(data).or_else(|_| Btf::parse(data)) {
        visit(&btf);
        if let Ok(schema) = Schema::from_btf(&btf) {
            let json = serde_json::to_string(&schema).expect("JSON");
            assert_eq!(serde_json::from_str::<Schema>(&json).expect("the schema"), schema);
        }
    }
});

/// Everything that can be asked of the types, so that hostile references are followed.
fn visit(btf: &Btf) {
    let mut sections = BTreeSet::new();
    for id in (0..).map(TypeId) {
        let Some(found) = btf.get(id) else { break };
        if let Type::Section { name, .. } = found
            && sections.insert(name)
        {
            let _ = btf.section(name);
        }
        let _ = btf.size_of(id);
        let _ = btf.struct_id(id);
        let _ = btf.typedef_names(id).count();
        let _ = btf.member_tags(id, 0).count();
    }
}

/// The objects of the gadgets, others that are smaller or have other types, and the BTF in each.
fn objects() -> Vec<Vec<u8>> {
    let others = ["features", "programs", "tracker"].map(|name| bpf::object(name).expect("an object"));
    let objects: Vec<&[u8]> = CATALOGUE.0.iter().map(|gadget| (gadget.object)()).chain(others).collect();
    let btf = objects.iter().map(|object| {
        let file = object::File::parse(*object).expect("ELF");
        let section = file.section_by_name(".BTF").expect("BTF");
        section.data().expect("BTF")
    });
    objects.iter().copied().chain(btf).map(Vec::from).collect()
}
