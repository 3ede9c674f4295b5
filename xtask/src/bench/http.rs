//! What a trace costs a web server: nginx and wrk on loopback.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aya::sys::{Stats, enable_stats};

use crate::programs;
use crate::workspace::output;

use super::load::PORT;
use super::proc::{self, Programs};
use super::report::{Measure, Numbers, Report, Target};
use super::running::Running;
use super::stats::confidence;
use super::tool::Tool;
use super::{Bench, alternate, rates};

/// How requests and connections relate.
#[derive(Clone, Copy)]
struct Mode {
    hit: &'static Measure,
    share: &'static Measure,
    headers: &'static [&'static str],
}

const MODES: [Mode; 2] = [
    Mode {
        hit: &Measure {
            name: "HTTP keep-alive, hit",
            unit: "%",
            meaning: "requests per second that nginx loses while tcplife traces it, 8 connections that stay open",
            target: None,
        },
        share: &Measure {
            name: "HTTP keep-alive, CPU",
            unit: "% of a CPU per 10,000 requests/s",
            meaning: "time in BPF programs and in the tool itself, for a rate of 10,000 requests a second",
            target: Some(Target::Value(0.1)),
        },
        headers: &[],
    },
    Mode {
        hit: &Measure {
            name: "HTTP one connection per request, hit",
            unit: "%",
            meaning: "the same with a connection for each request",
            target: None,
        },
        share: &Measure {
            name: "HTTP one connection per request, CPU",
            unit: "% of a CPU per 10,000 requests/s",
            meaning: "the same with a connection for each request: two rows a request",
            target: None,
        },
        headers: &["-H", "Connection: close"],
    },
];

/// Throughput with and without a trace, and the CPU share of tracing.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let (Some(nginx), Some(wrk)) = (found("nginx"), found("wrk")) else {
        report.note("HTTP: not measured; on Debian: apt-get install nginx-light wrk".into());
        return Ok(());
    };
    let _server = Server::start(&nginx, bench.directory.path())?;
    for mode in MODES {
        let load = || requests_per_second(&wrk, mode, bench.time);
        hit(bench, report, mode, load)?;
        share(bench, report, mode, load)?;
    }
    Ok(())
}

/// Debian puts daemons where not everybody's `PATH` leads.
fn found(name: &str) -> Option<PathBuf> {
    let daemon = Path::new("/usr/sbin").join(name);
    programs::find(name).or_else(|| daemon.is_file().then_some(daemon))
}

fn hit(
    bench: &Bench,
    report: &mut Report,
    mode: Mode,
    load: impl Fn() -> Result<f64>,
) -> Result<()> {
    let ours = bench.ours(&["tcplife"]);
    let tools: Vec<&Tool> = std::iter::once(&ours).chain(&bench.peers.tcplife).collect();
    // Not a round that counts: the first one after a start is never like the others.
    load()?;
    let (untraced, traced) = rates(bench, &tools, load)?;
    let hits: Vec<Vec<f64>> = traced
        .iter()
        .map(|rates| lost_percent(&untraced, rates))
        .collect();
    for numbers in &Numbers::of(&tools, &hits) {
        // No ratio: both are differences that may be next to nothing.
        report.row(mode.hit, numbers, None);
        let Numbers { tool, values } = numbers;
        if let Some((mean, margin)) = confidence(values) {
            report.note(format!(
                "{}, {tool}: {mean:.2} % ± {margin:.2} % (95 % confidence)",
                mode.hit.name
            ));
        }
    }
    Ok(())
}

/// How much less than untraced, round by round.
fn lost_percent(untraced: &[f64], traced: &[f64]) -> Vec<f64> {
    untraced
        .iter()
        .zip(traced)
        .map(|(without, with)| (1.0 - with / without) * 100.0)
        .collect()
}

fn share(
    bench: &Bench,
    report: &mut Report,
    mode: Mode,
    load: impl Fn() -> Result<f64>,
) -> Result<()> {
    let ours = bench.ours(&["tcplife"]);
    let tools: Vec<&Tool> = std::iter::once(&ours).chain(&bench.peers.tcplife).collect();
    let mut shares: Vec<Vec<f64>> = vec![Vec::new(); tools.len()];
    let statistics = enable_stats(Stats::RunTime).context("the kernel keeps no BPF statistics")?;
    alternate(bench.rounds, tools.len(), |at| {
        let mut tracer = Running::start(tools[at], bench.directory.path())?;
        let pid = tracer.pid();
        let before = Programs::of(pid).run_ns as f64 / 1e9 + proc::cpu(pid)?.as_secs_f64();
        let start = Instant::now();
        let rate = load()?;
        let seconds = start.elapsed().as_secs_f64();
        tracer.settle()?;
        let after = Programs::of(pid).run_ns as f64 / 1e9 + proc::cpu(pid)?.as_secs_f64();
        tracer.stop()?;
        shares[at].push((after - before) / (rate * seconds) * 10_000.0 * 100.0);
        Ok(())
    })?;
    drop(statistics);
    let numbers = Numbers::of(&tools, &shares);
    report.row(mode.share, &numbers[0], numbers.get(1));
    Ok(())
}

fn requests_per_second(wrk: &Path, mode: Mode, time: Duration) -> Result<f64> {
    let seconds = format!("-d{}s", time.as_secs());
    let text = output(
        Command::new(wrk)
            .args(["-t1", "-c8", &seconds])
            .args(mode.headers)
            .arg(format!("http://127.0.0.1:{PORT}/")),
    )?;
    rate(&text)
}

/// What wrk says, if nothing went wrong.
fn rate(text: &str) -> Result<f64> {
    let line = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name));
    if let Some(errors) = line("Socket errors:").or_else(|| line("Non-2xx or 3xx responses:")) {
        bail!("wrk had errors: {}", errors.trim());
    }
    let rate = line("Requests/sec:").and_then(|rate| rate.trim().parse().ok());
    rate.with_context(|| format!("cannot read what wrk says:\n{text}"))
}

/// nginx in the foreground, one process, everything below a directory of its own.
struct Server(Child);

impl Server {
    fn start(nginx: &Path, directory: &Path) -> Result<Self> {
        let prefix = directory.join("nginx");
        fs::create_dir_all(&prefix)?;
        fs::write(prefix.join("index.html"), "hello\n")?;
        let prefix = prefix
            .to_str()
            .context("the temporary directory has a strange name")?;
        let configuration = configuration(prefix);
        let file = format!("{prefix}/nginx.conf");
        fs::write(&file, configuration)?;
        let child = Command::new(nginx)
            .args(["-e", "stderr", "-p", prefix, "-c", &file])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start nginx")?;
        let mut server = Self(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).is_err() {
            if let Some(status) = server.0.try_wait()? {
                bail!("nginx ended: {status}");
            }
            if Instant::now() > deadline {
                bail!("nginx does not listen");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn configuration(prefix: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {prefix}/{name};"))
        .join(" ");
    format!(
        "daemon off; master_process off; pid {prefix}/pid; error_log stderr error;
         events {{ worker_connections 1024; }}
         http {{
             access_log off; keepalive_requests 100000000; {temporary}
             server {{ listen 127.0.0.1:{PORT}; root {prefix}; }}
         }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_unless_there_were_errors() {
        let good = "Running 1s test\n  63511 requests in 1.10s, 15.02MB read\nRequests/sec:  57755.25\nTransfer/sec:     13.66MB\n";
        assert_eq!(rate(good).unwrap(), 57_755.25);
        let errors = format!("  Socket errors: connect 0, read 3, write 0, timeout 0\n{good}");
        assert!(rate(&errors).unwrap_err().to_string().contains("read 3"));
        rate("unable to connect").unwrap_err();
    }

    #[test]
    fn what_is_lost_is_a_part_of_untraced() {
        assert_eq!(lost_percent(&[100.0, 50.0], &[75.0, 75.0]), [25.0, -50.0]);
    }
}
