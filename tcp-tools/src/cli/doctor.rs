//! `doctor`: what this kernel offers, and what each view lacks.

use std::fs;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::{FAILED, OK, common::KernelArgs};
use crate::enrich::Hierarchy;
use crate::kernel::{
    Attached, Error, Filter, Kernel, Options, Point, Tier, btf::KERNEL_BTF, check_surroundings,
    namespace, privilege, pseudo,
};
use crate::views::Needs;

/// Options of its own.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// As one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kernel: KernelArgs,
}

/// What was found.
struct Findings {
    release: String,
    /// Where the kernel's type information comes from, if it can be had.
    btf: Option<String>,
    missing_capabilities: Vec<&'static str>,
    lockdown: String,
    /// Whether this is the initial PID namespace; `None` where that cannot be found out.
    is_pid_namespace_initial: Option<bool>,
    cgroup2: Result<Hierarchy, String>,
    missing_fields: Vec<(String, &'static str)>,
    /// As it was forced.
    tier: Option<Tier>,
    points: Vec<Attached>,
    /// Why nothing could be tried.
    obstacle: Option<Error>,
    /// Each view, and why it cannot run.
    views: Vec<(&'static str, Option<String>)>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let level = args.kernel.start_log();
    let options = args
        .kernel
        .to_options(Needs::default(), Filter::default(), level);
    let mut findings = Findings {
        release: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        btf: Some(btf_file(&options)),
        missing_capabilities: privilege::missing(),
        lockdown: first_line("/sys/kernel/security/lockdown"),
        is_pid_namespace_initial: namespace::is_pid_namespace_initial(),
        cgroup2: cgroup2(),
        missing_fields: Vec::new(),
        tier: options.tier,
        points: Vec::new(),
        obstacle: None,
        views: Vec::new(),
    };
    match Kernel::prepare(&options) {
        Ok(kernel) => {
            findings.points = kernel.attach(&Point::all().collect::<Vec<_>>(), options.tier);
            findings.missing_fields = kernel
                .missing_fields
                .iter()
                .map(|it| (it.field.clone(), it.loss))
                .collect();
        }
        Err(error) => {
            if matches!(error, Error::Btf(_)) {
                findings.btf = None;
            }
            findings.obstacle = Some(error);
        }
    }
    findings.views = super::views()
        .map(|(name, needs)| (name, findings.problem(&needs.points)))
        .collect();
    let text = if args.json {
        format!("{}\n", findings.json())
    } else {
        findings.text()
    };
    super::print(&text)?;
    Ok(if findings.ok() { OK } else { FAILED })
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("not available").to_owned()
}

fn btf_file(options: &Options) -> String {
    let file = options.btf.as_deref();
    file.map_or_else(|| String::from(KERNEL_BTF), |it| it.display().to_string())
}

/// What is mounted may be covered by something else.
fn cgroup2() -> Result<Hierarchy, String> {
    let hierarchy = Hierarchy::find().map_err(|error| error.to_string())?;
    let mount = hierarchy.mount();
    if pseudo::is_cgroup2(mount) {
        return Ok(hierarchy);
    }
    Err(format!(
        "mounted on {}, but not visible there",
        mount.display()
    ))
}

impl Findings {
    /// Why a view that attaches these points cannot run, in the words in which it would say so.
    fn problem(&self, points: &[Point]) -> Option<String> {
        if let Some(error) = &self.obstacle {
            return Some(message(error));
        }
        let surroundings = check_surroundings(points).err();
        let mut asked = self.points.iter().filter(|it| points.contains(&it.point));
        let error = surroundings.or_else(|| asked.find_map(|it| it.obstacle(self.tier)));
        error.as_ref().map(message)
    }

    fn ok(&self) -> bool {
        self.views.iter().all(|(_, problem)| problem.is_none())
            && self
                .points
                .iter()
                .all(|it| it.chosen.is_some() || it.point.is_optional())
    }

    fn json(&self) -> Value {
        let points: Vec<_> = self.points.iter().map(point_json).collect();
        let missing_fields: Vec<_> = self
            .missing_fields
            .iter()
            .map(|(field, loss)| json!({"field": field, "switched_off": loss}))
            .collect();
        json!({
            "kernel": {"release": self.release},
            "btf": {"source": self.btf},
            "capabilities": {"missing": self.missing_capabilities},
            "lockdown": self.lockdown,
            "pid_namespace": {"initial": self.is_pid_namespace_initial},
            "cgroup2": self.cgroup2.is_ok(),
            "missing_fields": missing_fields,
            "points": points,
            "obstacle": self.obstacle.as_ref().map(message),
            "views": self.views.iter().map(view_json).collect::<Vec<_>>(),
            "ok": self.ok(),
        })
    }

    fn text(&self) -> String {
        let mut checks = table(["CHECK", "FOUND"]);
        let capabilities = match self.missing_capabilities.as_slice() {
            [] => String::from("all that are needed"),
            missing => format!("missing {}", missing.join(", ")),
        };
        checks.add_row(["kernel", &self.release]);
        let btf = self.btf.as_deref().unwrap_or("unusable: see obstacle");
        checks.add_row(["btf", btf]);
        checks.add_row(["capabilities", &capabilities]);
        checks.add_row(["lockdown", &self.lockdown]);
        let pid_namespace = match self.is_pid_namespace_initial {
            Some(true) => "the initial one",
            Some(false) => {
                "not the initial one: PIDs are those of the initial one; what processes outside hold is not seen"
            }
            None => "unknown",
        };
        checks.add_row(["pid namespace", pid_namespace]);
        let cgroup2 = self
            .cgroup2
            .as_ref()
            .map_or_else(String::as_str, |_| "mounted");
        checks.add_row(["cgroup2", cgroup2]);
        for (field, loss) in &self.missing_fields {
            checks.add_row(["missing field", &format!("{field}: no {loss}")]);
        }
        if let Some(error) = &self.obstacle {
            checks.add_row(["obstacle", &message(error)]);
        }
        if self.is_pid_namespace_initial.is_none() && !pseudo::has_proc() {
            checks.add_row(["proc", pseudo::NO_PROC]);
        }
        let mut points = table(["POINT", "TIER", "MECHANISM"]);
        let mut refusals = table(["POINT", "REFUSED", "REASON"]);
        for point in &self.points {
            let name = point.point.to_string();
            let tier = point
                .chosen
                .as_ref()
                .map_or_else(|| String::from("-"), |_| tier_name(point.tier));
            let mechanism = point.chosen.clone().unwrap_or_else(|| missing(point.point));
            points.add_row([&name, &tier, &mechanism]);
            for it in &point.refused {
                refusals.add_row([&name, &it.mechanism, &it.reason]);
            }
        }
        let mut views = table(["VIEW", "CANNOT RUN"]);
        // An obstacle, shown above, is that of all.
        for (view, problem) in self.views.iter().filter(|_| self.obstacle.is_none()) {
            problem.iter().for_each(|problem| {
                views.add_row([*view, problem]);
            });
        }
        let verdict = if self.ok() {
            "All views can run."
        } else {
            "Not all views can run."
        };
        let tables = [checks, points, refusals, views];
        let filled = tables.iter().filter(|table| table.row_count() > 0);
        let lines = filled.flat_map(|table| table.lines().chain([String::new()]));
        let mut text: String = lines.map(|line| format!("{}\n", line.trim())).collect();
        text.push_str(verdict);
        text.push('\n');
        text
    }
}

fn view_json((view, problem): &(&'static str, Option<String>)) -> Value {
    let mut json = json!({"view": view, "runs": problem.is_none()});
    if let Some(problem) = problem {
        json["problem"] = json!(problem);
    }
    json
}

fn point_json(attached: &Attached) -> Value {
    let refused: Vec<_> = attached
        .refused
        .iter()
        .map(|it| json!({"mechanism": it.mechanism, "reason": it.reason}))
        .collect();
    json!({
        "point": attached.point.to_string(),
        "chosen": attached.chosen,
        "tier": attached.chosen.as_ref().map(|_| tier_name(attached.tier)),
        "refused": refused,
    })
}

fn tier_name(tier: Option<Tier>) -> String {
    tier.map_or_else(|| String::from("any"), |tier| tier.to_string())
}

fn missing(point: Point) -> String {
    point.loss().map_or_else(
        || String::from("none: nothing can be traced"),
        |loss| format!("none: {loss}"),
    )
}

/// With all its causes.
fn message(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header);
    table
}
