//! What a peer sends: the same frames in whatever portions it comes, or refused; and what was read survives being sent
//! again.
//!
//! An input is the size of portions and a stream. If the size is 0, type and payload of one frame follow instead, so
//! that mutations need not get its length right.

#![no_main]

mod seeds;

use gadgets::catalogue::CATALOGUE;
use gadgets::decoder::Decoder;
use gadgets::spec::{Host, Limits, Past, RunSpec, Selector};
use gadgets::tasks::{Choice, TaskFilter};
use gadgets::wire::{
    ArgEntry, CgroupEntry, Clock, Dictionary, Failure, FailureKind, Frame, FrameEntry, GadgetStatus, Gap, Heartbeat,
    Hello, Loss, Node, ProcessEnd, Program, Recorded, Recording, RecordingsRequest, Resume, Running, StackEntry,
    StackFrame, Stage, Status, SyscallEntry, Trailer, UserStackEntry, VERSION, WireError,
};
use gadgets::workload::Workload;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write(sessions), |data: &[u8]| {
    let Some((&portion, rest)) = data.split_first() else { return };
    let stream = match (portion, rest.len()) {
        (0, 1..) => [&(rest.len() as u32 - 1).to_le_bytes(), rest].concat(),
        _ => rest.to_vec(),
    };
    let heard = decode(&stream, stream.len());
    assert_eq!(decode(&stream, portion.into()), heard);
    for frame in heard.0 {
        match frame.encode() {
            Ok(bytes) => assert_eq!(decode(&bytes, bytes.len()), (vec![frame], Ok(()))),
            // Members that were left out are written out, which can be too long.
            Err(error) => assert!(matches!(error, WireError::Oversized(_)), "{error}"),
        }
    }
});

fn decode(stream: &[u8], portion: usize) -> (Vec<Frame>, Result<(), WireError>) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for bytes in stream.chunks(portion.max(1)) {
        decoder.push(bytes);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, decoder.finish())
}

/// Each frame for itself, and a session of all.
fn sessions() -> Vec<Vec<u8>> {
    let frames: Vec<Vec<u8>> = frames().iter().map(|frame| frame.encode().expect("small")).collect();
    let mut seeds: Vec<Vec<u8>> = frames.iter().map(|frame| [&[0], &frame[size_of::<u32>()..]].concat()).collect();
    seeds.push([vec![7], frames.concat()].concat());
    seeds
}

/// One of each, with all members, whose names are then known to the fuzzer.
fn frames() -> Vec<Frame> {
    let text = || "some".to_owned();
    let texts = || vec![text(), text()];
    let map = || [(text(), text())].into();
    let clock = Clock { boot_ns: 1, wall_ns: 2 };
    let selector = Selector {
        namespaces: texts(),
        pods: texts(),
        labels: "app in (web,api),!canary".parse().expect("a selector"),
        workloads: vec![Workload::new("Deployment", "web")],
        containers: texts(),
        cgroups: texts(),
        host: Host::All,
        machinery: true,
    };
    let comm = || "sh".parse().expect("a name");
    let tasks = TaskFilter {
        pids: Choice::Only([7, 8].into()),
        uids: Choice::Not([0].into()),
        comms: Choice::Only([comm()].into()),
    };
    let run = RunSpec {
        gadget: text(),
        selector,
        tasks: tasks.clone(),
        is_present: true,
        calls: Choice::Not([text()].into()),
        parameters: map(),
        variants: map(),
        interval_ms: Some(500),
        limits: Limits { ring_bytes: Some(65536) },
        began_ms_ago: 3,
        past: Some(Past { id: text(), since_ms: Some(30), last: Some(31), follow: true }),
    };
    let selector = run.selector.clone();
    let node = Node { name: text(), kernel: text(), clock, variants: map(), degraded: texts() };
    let entry = CgroupEntry {
        cgroup: 4,
        path: text(),
        namespace: Some(text()),
        pod: Some(text()),
        pod_uid: Some(text()),
        container: Some(text()),
        container_id: Some(text()),
        labels: map(),
        owner: Some(text()),
        sandbox: true,
    };
    let loss = Loss {
        stage: Stage::KernelRing,
        reason: text(),
        namespace: Some(text()),
        pod: Some(text()),
        from_ns: 5,
        to_ns: 6,
        count: 7,
    };
    let gadget = GadgetStatus { name: text(), variants: map(), degraded: texts(), error: Some(text()) };
    let running = Running {
        gadget: text(),
        parameters: [(text(), 8)].into(),
        tasks: tasks.clone(),
        ring_bytes: 9,
        kernel_bytes: 10,
        sessions: 11,
    };
    let program = Program { id: 12, name: text(), kind: text(), hook: text(), holder: text(), own: true };
    let status = Status {
        pods: Some(13),
        containers: 14,
        gadgets: vec![gadget],
        running: vec![running],
        programs: vec![program],
        programs_error: Some(text()),
    };
    let stack = StackEntry { number: 28, frames: vec![text()], cut: true };
    let user_stack = UserStackEntry { number: 42, frames: vec![43], cut: true, short: true, problem: Some(text()) };
    let frame = StackFrame {
        function: Some(text()),
        module: Some(text()),
        offset: Some(44),
        file: Some(text()),
        line: Some(45),
        inlined: true,
        jit: true,
    };
    let syscall = SyscallEntry { number: 29, name: text(), args: vec![ArgEntry { name: text(), kind: text() }] };
    let recorded = Recorded {
        container: Some(entry.clone()),
        bytes: 32,
        kept: 33,
        overwritten: 34,
        first_wall_ns: Some(35),
        last_wall_ns: Some(36),
        is_gone: true,
        end: Some(ProcessEnd::Killed(9)),
    };
    let gap = Gap { from_ns: 16, to_ns: 17, reason: text() };
    let recording = Recording {
        id: text(),
        gadget: text(),
        parameters: [(text(), text())].into(),
        selector,
        began_wall_ns: 37,
        bytes: 38,
        containers: vec![recorded],
        forgotten_containers: 39,
        forgotten: 40,
        lost: 41,
        gaps: vec![gap.clone()],
    };
    let request = run.clone();
    let hello = |run, node, status| Hello {
        version: VERSION,
        software: text(),
        run,
        resume: Some(Resume { session: 22, records: 23, lost: 24 }),
        allowed: Some(25),
        status,
        recordings: Some(RecordingsRequest::Start { id: text(), run: Box::new(request.clone()) }),
        grant: Some(serde_json::json!({"a": [null, true, -1, 0.5, "b"]})),
        node,
        session: Some(26),
    };
    vec![
        Frame::Hello(Box::new(hello(Some(run), None, false))),
        Frame::Hello(Box::new(hello(None, Some(node), true))),
        Frame::Schema(CATALOGUE.0[0].schema().expect("a schema")),
        Frame::Dictionary(Dictionary {
            cgroups: vec![entry],
            gone: vec![15],
            stacks_anew: true,
            stacks: vec![stack],
            user_stacks: vec![user_stack],
            frames: vec![FrameEntry { id: 46, frame }],
            syscalls: vec![syscall],
        }),
        Frame::Batch(vec![0, 1, 2, 255]),
        Frame::Loss(loss),
        Frame::Gap(gap),
        Frame::Heartbeat(Heartbeat { clock: Some(clock), complete_to_ns: Some(18), allowed: Some(27) }),
        Frame::Stop,
        Frame::Trailer(Trailer { records: 19, lost: 20, gaps: 21 }),
        Frame::Error(Failure { kind: FailureKind::NotFound, message: text() }),
        Frame::Status(Box::new(status)),
        Frame::Recording(Box::new(recording)),
    ]
}
