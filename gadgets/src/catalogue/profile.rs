//! profile: where time goes.

use super::{
    Gadget, Hook, PERF_EVENTS, Parameter, ParameterKind, Profiled, Shows, TICK_TRACEPOINT, TYPED_TRACEPOINTS, Variant,
};

pub(super) static PROFILE: Gadget = Gadget {
    name: "profile",
    aliases: &["profile-cpu"],
    summary: "functions that processors spend their time in, or that threads wait in",
    description: "Each processor is looked at 49 times a second: what runs there, in which function of the program and of the \
                  kernel, and who has called it. With --off-cpu it is threads that are looked at: how long they wait, and \
                  where. Stacks of programs are followed by frame pointers; functions have the names that the files of the \
                  container and, for code that was made while it ran, /tmp/perf-PID.map give them.",
    object: || bpf::object("profile").unwrap_or_default(),
    parameters: &[
        Parameter::new(
            "freq",
            "gadget_frequency",
            ParameterKind::Number { min: 1, max: 999, default: 49 },
            "Look at each processor so many times a second",
        )
        .excluding("off-cpu"),
        Parameter::flag("user", "user_only", "Show functions of programs only").excluding("kernel"),
        Parameter::flag("kernel", "kernel_only", "Show functions of the kernel only"),
        Parameter::flag("idle", "gadget_wants_idle", "Also count when processors have nothing to do")
            .excluding("off-cpu"),
        Parameter::flag("off-cpu", "off_cpu", "Show where threads wait, instead of where they run")
            .with_hook("waits")
            .instead_of("samples"),
    ],
    columns: &["pid", "comm", "activity", "samples", "spent", "user_stack", "kernel_stack"],
    shows: Shows::Profile(Profiled { measures: &["samples", "spent"], waiting: "off-cpu" }),
    report: None,
    hooks: &[
        Hook {
            name: "samples",
            without: None,
            variants: &[
                Variant {
                    name: "clock",
                    programs: &["clock_strikes"],
                    requires: &[&PERF_EVENTS],
                    cost: "each processor, at that frequency: one that is idle is woken",
                    lacks: None,
                },
                Variant {
                    name: "tick",
                    programs: &["processor_ticks"],
                    requires: &[&TYPED_TRACEPOINTS, &TICK_TRACEPOINT],
                    cost: "each processor that is not idle, no more often than the kernel ticks; and each change of task",
                    lacks: Some(
                        "samples keep step with timers: what these start, if it is over within milliseconds, is seen never or too often; \
                         and processors that have nothing to do hardly tick, so --idle counts few of them",
                    ),
                },
            ],
        },
        Hook {
            name: "waits",
            without: None,
            variants: &[Variant {
                name: "tp_btf",
                programs: &["task_switches", "find_waits", "sample_waits"],
                requires: &[&TYPED_TRACEPOINTS],
                cost: "each change of task of the node",
                lacks: None,
            }],
        },
    ],
};
