//! Where a program or thread begins: what lies beyond on a stack is left over from something else, and looks like frames.

use std::sync::Arc;

use gadgets::wire::StackFrame;

/// Functions that are called by nobody, or by what has no frame pointers, by how their names begin.
const FUNCTIONS: [&str; 16] = [
    "_start",
    "__libc_start_main",
    "__libc_start_call_main",
    "start_thread",
    "clone",
    "__clone",
    "_dl_start_user",
    "runtime.goexit",
    "runtime.mstart",
    "runtime.rt0_go",
    "runtime.mcall",
    "runtime.systemstack",
    "runtime.asmcgocall",
    "runtime.sigreturn",
    "_rt0_",
    "_start_c",
];
/// Libraries of C, by how the names of their files begin. What calls `main` there often has no name.
const LIBRARIES: [&str; 3] = ["libc.so", "libc-", "ld-musl-"];

/// Ends a stack where its thread begins, or where it cannot go on. Returns whether that is short of its beginning, as far as can be told:
/// of a stack without any names nothing can.
pub(super) fn cut(frames: &mut Vec<Arc<StackFrame>>) -> bool {
    let nowhere = |frame: &Arc<StackFrame>| frame.function.is_none() && frame.module.is_none();
    let end = frames.iter().skip(1).position(nowhere).map_or(frames.len(), |at| at + 1);
    frames.truncate(end);
    if let Some(at) = frames.iter().position(|frame| is_beginning(frame)) {
        frames.truncate(at + 1);
        return false;
    }
    let is_named = frames.iter().any(|frame| frame.function.is_some());
    is_named && !frames.last().is_some_and(|frame| is_in_library(frame))
}

fn is_beginning(frame: &StackFrame) -> bool {
    frame.function.as_ref().is_some_and(|function| FUNCTIONS.iter().any(|name| is_called(function, name)))
}

/// Whether a function is called that; what follows may be a version, or what the compiler has made of it.
fn is_called(function: &str, name: &str) -> bool {
    let Some(rest) = function.strip_prefix(name) else { return false };
    name.ends_with('_') || !rest.starts_with(|next: char| next.is_ascii_alphabetic() || next == '_')
}

fn is_in_library(frame: &StackFrame) -> bool {
    let file = frame.module.as_deref().and_then(|module| module.rsplit('/').next());
    frame.function.is_none() && file.is_some_and(|file| LIBRARIES.iter().any(|name| file.starts_with(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(names: &[&str]) -> Vec<Arc<StackFrame>> {
        let frame = |name: &&str| match name.strip_prefix('/') {
            Some(_) => StackFrame { module: Some((*name).to_owned()), ..StackFrame::default() },
            None => StackFrame {
                function: Some((*name).to_owned()).filter(|name| !name.is_empty()),
                module: Some("/app/hot".to_owned()).filter(|_| !name.is_empty()),
                ..StackFrame::default()
            },
        };
        names.iter().map(frame).map(Arc::new).collect()
    }

    /// How many frames are left, and whether they are too few.
    fn left(names: &[&str]) -> (usize, bool) {
        let mut frames = frames(names);
        let is_short = cut(&mut frames);
        (frames.len(), is_short)
    }

    #[test]
    fn what_lies_beyond_the_beginning_is_cut() {
        assert_eq!(left(&["spin", "main", "__libc_start_call_main", "__do_global_dtors_aux", ""]), (3, false));
        assert_eq!(left(&["main.spin", "runtime.main", "runtime.goexit.abi0"]), (3, false));
        assert_eq!(left(&["spin", "main", "/lib/x86_64-linux-gnu/libc.so.6"]), (3, false));
        assert_eq!(left(&["py::run", "Py_BytesMain", "/usr/lib/libc.so.6", "", "more"]), (3, false));
        assert_eq!(left(&["work", "start_thread", "clone3"]), (2, false));
    }

    #[test]
    fn what_ends_before_it_is_short() {
        assert_eq!(left(&["memcpy"]), (1, true));
        assert_eq!(left(&["memcpy", "", "main"]), (1, true));
        // Of these only the beginning is like it.
        assert_eq!(left(&["inner", "start_thread_pool"]), (2, true));
        assert_eq!(left(&["inner", "clone_into"]), (2, true));
        // Nobody knows.
        assert_eq!(left(&["/app/hot", "/app/hot"]), (2, false));
        assert_eq!(left(&[""]), (1, false));
    }
}
