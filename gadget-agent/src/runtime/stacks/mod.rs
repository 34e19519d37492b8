//! Stacks: what is behind the numbers in a gadget's records. See `bpf/include/stack.h`.
//!
//! - [`kernel`]: those of the kernel, which are named at once
//! - [`user`]: those of programs, whose names are looked up meanwhile
//! - [`recent`]: how long both are remembered

mod kernel;
mod recent;
mod user;

use std::sync::Arc;

use gadgets::record::Header;
use gadgets::schema::{Kind, Schema};
use gadgets::wire::{FrameEntry, StackEntry, UserStackEntry};
use libbpf_rs::Object;

use crate::symbols::Symbols;
use kernel::Kernel;
use user::User;

/// `GADGET_STACK_NONE` and `GADGET_STACK_UNKEPT` of `gadget.h`.
const NONE: u64 = 0;
const UNKEPT: u64 = u64::MAX;
/// `STACK_FRAMES` of `stack.h`.
const FRAMES: usize = 127;
/// Why a program's stack is unknown.
const FORGOTTEN: &str = "there were more stacks at once than the agent remembers";

/// A stack whose frames are known, as far as they can be.
#[derive(Debug)]
pub(crate) enum Stack {
    /// Of the kernel.
    Kernel(StackEntry),
    /// Of a program, and its frames.
    User(UserStackEntry, Vec<Arc<FrameEntry>>),
}

impl Stack {
    pub(crate) fn number(&self) -> u64 {
        match self {
            Self::Kernel(entry) => entry.number,
            Self::User(entry, _) => entry.number,
        }
    }

    /// One of which nobody knows the frames.
    fn unknown_of_kernel(number: u64) -> Self {
        Self::Kernel(StackEntry { number, ..StackEntry::default() })
    }

    fn unknown_of_program(number: u64) -> Self {
        let problem = Some(FORGOTTEN.to_owned());
        Self::User(UserStackEntry { number, problem, ..UserStackEntry::default() }, Vec::new())
    }
}

/// Whose a stack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Kernel,
    User,
}

/// The stacks of one gadget.
pub(crate) struct Stacks {
    /// Where records have their numbers: stream, and bytes from the record's start.
    places: Vec<(u16, usize, Of)>,
    kernel: Option<Kernel>,
    user: Option<User>,
}

impl Stacks {
    /// Those of a gadget that was loaded. Those of programs have names if `symbols` gives them.
    pub(crate) fn of(object: &Object, schema: &Schema, symbols: Option<Symbols>) -> Self {
        let places = schema.streams.iter().flat_map(|stream| {
            let place = |field: &gadgets::schema::Field| match field.kind {
                Kind::KernelStack => Some((stream.id, field.offset as usize, Of::Kernel)),
                Kind::UserStack => Some((stream.id, field.offset as usize, Of::User)),
                _ => None,
            };
            stream.fields.iter().filter_map(place)
        });
        let mut stacks = Self { places: places.collect(), kernel: None, user: User::of(object, symbols) };
        if stacks.places.iter().any(|(.., of)| *of == Of::Kernel) {
            match Kernel::of(object) {
                Ok(kernel) => stacks.kernel = Some(kernel),
                Err(error) => tracing::warn!("stacks of the kernel have no names: {error}"),
            }
        }
        stacks
    }

    /// Takes in answers, and makes room for other stacks. Returns whether these were all: else the others are to be taken in when these were
    /// used, since they may displace them.
    pub(crate) fn collect(&mut self) -> bool {
        self.user.as_mut().is_none_or(User::collect)
    }

    /// A record has come, and will be asked about: asks for what has names only as long as its process is there, if nobody has yet.
    pub(crate) fn expect(&mut self, header: &Header, record: &[u8]) {
        for (of, number) in self.places_in(header, record).collect::<Vec<_>>() {
            match (of, &mut self.user, &mut self.kernel) {
                _ if number == NONE => {}
                (Of::User, Some(user), _) if number == UNKEPT => user.were_lost(),
                (Of::User, Some(user), _) => _ = user.look(number),
                (Of::Kernel, _, Some(kernel)) if number != UNKEPT => kernel.expect(number),
                _ => {}
            }
        }
    }

    /// Whether so many have come that their records should be asked about: there would be no room for others.
    pub(crate) fn are_many(&self) -> bool {
        self.kernel.as_ref().is_some_and(Kernel::are_many)
    }

    /// Whether it is known what a record's stacks are, as far as it can be.
    pub(crate) fn knows(&mut self, header: &Header, record: &[u8]) -> bool {
        let numbers = self.numbers(header, record);
        numbers.into_iter().fold(true, |known, (of, number)| self.look(of, number).is_some() && known)
    }

    /// Whether programs have come since the last call that had no stacks before.
    pub(crate) fn are_first(&mut self) -> bool {
        self.user.as_mut().is_some_and(User::are_first)
    }

    /// Whether some have no names yet.
    pub(crate) fn are_open(&self) -> bool {
        self.user.as_ref().is_some_and(User::are_open)
    }

    /// Leaves those that have no names yet without.
    pub(crate) fn give_up(&mut self) {
        self.user.iter_mut().for_each(User::give_up);
    }

    /// The stacks in a record. What nobody knows has no frames.
    pub(crate) fn in_record(&mut self, header: &Header, record: &[u8]) -> Vec<Arc<Stack>> {
        let numbers = self.numbers(header, record);
        let get = |(of, number)| self.look(of, number).unwrap_or_else(|| Arc::new(Stack::unknown_of_program(number)));
        numbers.into_iter().map(get).collect()
    }

    fn numbers(&self, header: &Header, record: &[u8]) -> Vec<(Of, u64)> {
        self.places_in(header, record).filter(|(_, number)| ![NONE, UNKEPT].contains(number)).collect()
    }

    fn places_in<'a>(&'a self, header: &Header, record: &'a [u8]) -> impl Iterator<Item = (Of, u64)> + 'a {
        let stream = header.stream;
        let in_stream = self.places.iter().filter(move |(of, ..)| *of == stream);
        in_stream.filter_map(|(_, at, of)| Some((*of, u64::from_ne_bytes(*record.get(*at..)?.first_chunk()?))))
    }

    /// A stack, if it is not open.
    fn look(&mut self, of: Of, number: u64) -> Option<Arc<Stack>> {
        match of {
            Of::Kernel => {
                let known = self.kernel.as_mut().map(|kernel| kernel.look(number));
                Some(known.unwrap_or_else(|| Arc::new(Stack::unknown_of_kernel(number))))
            }
            Of::User => match &mut self.user {
                Some(user) => user.look(number),
                None => Some(Arc::new(Stack::unknown_of_program(number))),
            },
        }
    }
}
