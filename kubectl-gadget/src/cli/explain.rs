//! `explain`: what a gadget shows, column by column, and how it comes by it. Needs no agent.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches as _};
use gadgets::catalogue::{COMMON_COLUMNS, Catalogue, EXTRA_COLUMNS, Gadget, ParameterKind, Variant};
use serde_json::{Value, json};

use super::{Format, find, print, table};
use crate::exit::End;
use crate::output::columns;

#[derive(Args)]
struct ExplainArgs {
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

pub(super) fn command() -> Command {
    let command = Command::new("explain").about("Explain a gadget: its columns, parameters and hooks");
    ExplainArgs::augment_args(command).arg(Arg::new("gadget").value_name("GADGET").required(true).help("Its name"))
}

pub(super) fn run(catalogue: Catalogue, matches: &ArgMatches) -> anyhow::Result<End> {
    let args = ExplainArgs::from_arg_matches(matches)?;
    let name: &String = matches.get_one("gadget").ok_or_else(|| anyhow::anyhow!("no gadget"))?;
    let gadget = find(catalogue, name)?;
    Ok(match args.output {
        Format::Json => print(&serde_json::to_string_pretty(&as_json(gadget)?)?),
        Format::Text => print(&as_text(gadget)?),
    })
}

fn as_json(gadget: &Gadget) -> anyhow::Result<Value> {
    let parameters: Vec<_> = gadget
        .parameters
        .iter()
        .map(|parameter| {
            let mut value = json!({"name": parameter.name, "doc": parameter.doc});
            let kind = match parameter.kind {
                ParameterKind::Flag => json!({"kind": "flag", "default": false}),
                ParameterKind::Number { min, max, default } => {
                    json!({"kind": "number", "min": min, "max": max, "default": default})
                }
            };
            merge(&mut value, kind);
            value
        })
        .collect();
    let hooks: Vec<_> = gadget
        .hooks
        .iter()
        .map(|hook| {
            let variants: Vec<_> = hook
                .variants
                .iter()
                .map(|variant| {
                    let (name, cost, lacks) = (variant.name, variant.cost, variant.lacks);
                    json!({"name": name, "requires": requires(variant), "cost": cost, "lacks": lacks})
                })
                .collect();
            json!({"name": hook.name, "without": hook.without, "variants": variants})
        })
        .collect();
    let common: Vec<_> =
        COMMON_COLUMNS.iter().chain(&EXTRA_COLUMNS).map(|(name, doc)| json!({"name": name, "doc": doc})).collect();
    Ok(json!({
        "name": gadget.name,
        "aliases": gadget.aliases,
        "summary": gadget.summary,
        "description": gadget.description,
        "parameters": parameters,
        "common_columns": common,
        "columns": columns::defaults(gadget),
        "streams": gadget.schema()?.streams,
        "hooks": hooks,
    }))
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

fn as_text(gadget: &Gadget) -> anyhow::Result<String> {
    let schema = gadget.schema()?;
    let shown = columns::defaults(gadget);
    let mark = |name: &str| if shown.contains(&name) { "yes" } else { "" };

    let mut fields = table(["COLUMN", "SHOWN", "MEANING"]);
    for (name, doc) in COMMON_COLUMNS.into_iter().chain(EXTRA_COLUMNS) {
        fields.add_row([name, mark(name), doc]);
    }
    for field in schema.fields() {
        fields.add_row([field.name.as_str(), mark(&field.name), &field.doc]);
    }
    let mut hooks = table(["HOOK", "VARIANT", "REQUIRES", "PAID BY"]);
    for hook in gadget.hooks {
        for variant in hook.variants {
            hooks.add_row([hook.name, variant.name, &requires(variant).join(", "), variant.cost]);
        }
    }
    let mut text =
        format!("{}: {}\n\n{}\n\n{}\n\n", gadget.name, gadget.summary, gadget.description, fields.trim_fmt());
    if !gadget.parameters.is_empty() {
        let mut parameters = table(["PARAMETER", "TAKES", "DOES"]);
        for parameter in gadget.parameters {
            let takes = match parameter.kind {
                ParameterKind::Flag => String::new(),
                ParameterKind::Number { min, max, default } => format!("{min} to {max}, default {default}"),
            };
            parameters.add_row([format!("--{}", parameter.name), takes, parameter.doc.to_owned()]);
        }
        text = format!("{text}{}\n\n", parameters.trim_fmt());
    }
    let missing: String = gadget
        .hooks
        .iter()
        .filter_map(|hook| Some(format!("\nWithout hook {}: {}.", hook.name, hook.without?)))
        .collect();
    let variants = gadget.hooks.iter().flat_map(|hook| hook.variants.iter().map(move |variant| (hook, variant)));
    let lacking: String = variants
        .filter_map(|(hook, variant)| Some(format!("\nWith {}={}: {}.", hook.name, variant.name, variant.lacks?)))
        .collect();
    Ok(format!("{text}{}\n{missing}{lacking}", hooks.trim_fmt()))
}

fn requires(variant: &Variant) -> Vec<String> {
    variant.requires.iter().map(ToString::to_string).collect()
}
