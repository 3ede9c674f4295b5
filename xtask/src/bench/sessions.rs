//! tcplife under many short sessions: what a row costs, what the sessions lose by it, what gets lost,
//! and what memory it takes.

use anyhow::{Context, Result};
use aya::sys::{Stats, enable_stats};

use super::proc::{self, Memory, Programs};
use super::report::{Measure, Numbers, Report, Target};
use super::running::Running;
use super::tool::Tool;
use super::{Bench, alternate, load};

const CPU: Measure = Measure {
    name: "CPU per event",
    unit: "µs",
    meaning: "user and system time of the tool per end of a session, tcplife to a file",
    target: Some(Target::Ratio(0.35)),
};

const RATE: Measure = Measure {
    name: "sessions, traced",
    unit: "1/s",
    meaning: "how many sessions the load gets done while it is traced; more is better",
    target: None,
};

const SLOW_DOWN: Measure = Measure {
    name: "slow-down",
    unit: "µs/session",
    meaning: "time per session while it is traced, less that of the untraced sessions of the same round",
    target: Some(Target::Ratio(0.333)),
};

const LOST: Measure = Measure {
    name: "events lost",
    unit: "1",
    meaning: "ends of sessions without a row, where the load keeps every processor busy",
    target: Some(Target::Value(0.0)),
};

const KERNEL: Measure = Measure {
    name: "kernel cost",
    unit: "ns/session",
    meaning: "time in all of the tool's BPF programs per session (BPF statistics); ours on each tier that was asked for",
    target: Some(Target::Ratio(0.4)),
};

const IDLE_PEAK: Measure = Measure {
    name: "peak RSS, idle",
    unit: "MB",
    meaning: "the most memory that was resident until the tool was attached",
    target: Some(Target::Ratio(0.5)),
};

const PEAK: Measure = Measure {
    name: "peak RSS, after",
    unit: "MB",
    meaning: "the most memory that was resident until all sessions were traced",
    target: Some(Target::Ratio(0.5)),
};

const PSS: Measure = Measure {
    name: "PSS, after",
    unit: "MB",
    meaning: "resident memory then, with its share of what other processes use too",
    target: None,
};

const MAPS: Measure = Measure {
    name: "maps and ring",
    unit: "MB",
    meaning: "kernel memory of the tool's BPF maps after the sessions",
    target: None,
};

/// One run of the load under one tool.
struct Sample {
    seconds: f64,
    /// Of the tool, while the sessions ran and until it had dealt with them; µs.
    cpu_us: f64,
    lost: f64,
    kernel_ns: f64,
    idle: Memory,
    after: Memory,
    maps: u64,
}

/// The CPU, slow-down and memory of tcplife beside its peers'.
pub(super) fn cost(bench: &Bench, report: &mut Report) -> Result<()> {
    let ours = bench.ours(&["tcplife"]);
    let sessions = bench.sessions as f64;
    let mut untraced = Vec::new();
    let traced: Vec<&Tool> = std::iter::once(&ours).chain(&bench.peers.tcplife).collect();
    let mut samples: Vec<Vec<Sample>> = traced.iter().map(|_| Vec::new()).collect();
    alternate(bench.rounds, traced.len() + 1, |subject| {
        match subject.checked_sub(1) {
            None => untraced.push(load::sessions(bench.sessions, bench.pairs())?.as_secs_f64()),
            Some(at) => samples[at].push(sample(bench, traced[at], bench.pairs())?),
        }
        Ok(())
    })?;
    let mut row = |measure: &Measure, value: &dyn Fn(&Sample, f64) -> f64| {
        let all: Vec<Vec<f64>> = samples
            .iter()
            .map(|of| {
                of.iter()
                    .zip(&untraced)
                    .map(|(s, u)| value(s, *u))
                    .collect()
            })
            .collect();
        compare(report, measure, &traced, &all);
    };
    row(&CPU, &|it, _| it.cpu_us / sessions / 2.0);
    row(&SLOW_DOWN, &|it, untraced| {
        (it.seconds - untraced) / sessions * 1e6
    });
    row(&RATE, &|it, _| sessions / it.seconds);
    row(&IDLE_PEAK, &|it, _| megabytes(it.idle.peak));
    row(&PEAK, &|it, _| megabytes(it.after.peak));
    row(&PSS, &|it, _| megabytes(it.after.pss));
    row(&MAPS, &|it, _| megabytes(it.maps));
    let rates: Vec<f64> = untraced.iter().map(|seconds| sessions / seconds).collect();
    let name = "untraced";
    report.row(
        &RATE,
        &Numbers {
            tool: name,
            values: &rates,
        },
        None,
    );

    // The others are too heavy to run in every round, and their memory hardly varies.
    for peer in [&bench.peers.bpftrace, &bench.peers.bcc]
        .into_iter()
        .flatten()
    {
        let theirs = sample(bench, peer, bench.pairs())?;
        let mut row = |measure: &Measure, value: fn(&Sample) -> u64| {
            let all = [
                samples[0].iter().map(|it| megabytes(value(it))).collect(),
                vec![megabytes(value(&theirs))],
            ];
            compare(report, measure, &[&ours, peer], &all);
        };
        row(&IDLE_PEAK, |it| it.idle.peak);
        row(&PEAK, |it| it.after.peak);
        row(&PSS, |it| it.after.pss);
        row(&MAPS, |it| it.maps);
    }
    Ok(())
}

/// What the programs cost in the kernel, ours on each tier.
pub(super) fn kernel(bench: &Bench, report: &mut Report) -> Result<()> {
    let ours: Vec<Tool> = match bench.tiers.as_slice() {
        [] => vec![bench.ours(&["tcplife"])],
        tiers => {
            let on = |tier: &String| {
                bench.ours_named(&format!("tcp-tools, {tier}"), &["tcplife", "--hooks", tier])
            };
            tiers.iter().map(on).collect()
        }
    };
    let tools: Vec<&Tool> = ours.iter().chain(&bench.peers.tcplife).collect();
    let mut costs: Vec<Vec<f64>> = tools.iter().map(|_| Vec::new()).collect();
    let statistics = enable_stats(Stats::RunTime).context("the kernel keeps no BPF statistics")?;
    alternate(bench.rounds, tools.len(), |at| {
        let it = sample(bench, tools[at], bench.pairs())?;
        costs[at].push(it.kernel_ns / bench.sessions as f64);
        Ok(())
    })?;
    drop(statistics);
    let peer = bench.peers.tcplife.as_ref().zip(costs.last());
    let peer = peer.map(|(tool, values)| Numbers {
        tool: &tool.name,
        values,
    });
    for (tool, values) in ours.iter().zip(&costs) {
        report.row(
            &KERNEL,
            &Numbers {
                tool: &tool.name,
                values,
            },
            peer.as_ref(),
        );
    }
    Ok(())
}

/// What gets lost at the machine's highest rate.
pub(super) fn loss(bench: &Bench, report: &mut Report) -> Result<()> {
    let ours = bench.ours(&["tcplife"]);
    let tools: Vec<&Tool> = std::iter::once(&ours).chain(&bench.peers.tcplife).collect();
    let mut lost: Vec<Vec<f64>> = tools.iter().map(|_| Vec::new()).collect();
    alternate(bench.rounds, tools.len(), |at| {
        // Two threads a pair: twice as many as there are processors.
        let it = sample(bench, tools[at], 2 * bench.pairs())?;
        lost[at].push(it.lost);
        Ok(())
    })?;
    compare(report, &LOST, &tools, &lost);
    Ok(())
}

/// A row of the first tool and of the second, if there is one.
fn compare(report: &mut Report, measure: &Measure, tools: &[&Tool], numbers: &[Vec<f64>]) {
    let of = |at: usize| {
        let (tool, values) = (tools.get(at)?, numbers.get(at)?);
        Some(Numbers {
            tool: &tool.name,
            values,
        })
    };
    if let Some(ours) = of(0) {
        report.row(measure, &ours, of(1).as_ref());
    }
}

fn sample(bench: &Bench, tool: &Tool, pairs: usize) -> Result<Sample> {
    let mut tracer = Running::start(tool, bench.directory.path())?;
    let pid = tracer.pid();
    let idle = Memory::of(pid)?;
    let (cpu, programs) = (proc::cpu(pid)?, Programs::of(pid));
    let seconds = load::sessions(bench.sessions, pairs)?.as_secs_f64();
    tracer.settle()?;
    let cpu = proc::cpu(pid)? - cpu;
    let kernel_ns = Programs::of(pid).run_ns - programs.run_ns;
    let (after, maps) = (Memory::of(pid)?, proc::map_memory(pid)?);
    let rows = tracer.stop()?;
    Ok(Sample {
        seconds,
        cpu_us: cpu.as_secs_f64() * 1e6,
        lost: (2 * bench.sessions).saturating_sub(rows) as f64,
        kernel_ns: kernel_ns as f64,
        idle,
        after,
        maps,
    })
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
