//! A tool that does not see /proc or /sys, as in some containers and chroots.

use std::ffi::CStr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use serde_json::Value;
use tcp_tools_tests::run_view;

/// Each view as it runs by default, and ends.
const VIEWS: [(&str, &[&str]); 6] = [
    ("tcplife", &["--duration", "100ms"]),
    ("tcpconnect", &["--duration", "100ms"]),
    ("tcpaccept", &["--duration", "100ms"]),
    ("tcpretrans", &["--duration", "100ms"]),
    ("tcptop", &["0.1", "1"]),
    ("sockets", &[]),
];

/// Runs a command that finds an empty directory where `directory` was.
fn without(directory: Option<&'static CStr>, mut command: Command) -> Output {
    const NONE: *const libc::c_char = std::ptr::null();
    let hide = move || {
        let Some(directory) = directory else {
            return Ok(());
        };
        let private = libc::MS_REC | libc::MS_PRIVATE;
        // SAFETY: all calls are async-signal-safe, and take valid strings or null pointers.
        let done = unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(NONE, c"/".as_ptr(), NONE, private, NONE.cast()) == 0
                && libc::mount(
                    c"tmpfs".as_ptr(),
                    directory.as_ptr(),
                    c"tmpfs".as_ptr(),
                    0,
                    NONE.cast(),
                ) == 0
        };
        done.then_some(()).ok_or_else(std::io::Error::last_os_error)
    };
    // SAFETY: see above.
    unsafe { command.pre_exec(hide) };
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn doctor(directory: Option<&'static CStr>) -> (Option<i32>, Value, String) {
    let run = |args: &[&str]| without(directory, run_view("doctor", args));
    let (json, table) = (run(&["--json"]), run(&[]));
    assert_eq!(json.status.code(), table.status.code());
    let report = serde_json::from_slice(&json.stdout).unwrap();
    (json.status.code(), report, text(&table.stdout))
}

/// The views that do not run, with what they say; `doctor` has found the same.
fn failing(directory: Option<&'static CStr>) -> Vec<(&'static str, String)> {
    let (code, report, table) = doctor(directory);
    let found = report["views"].as_array().unwrap();
    assert_eq!(found.len(), VIEWS.len(), "{report}");
    let mut failing = Vec::new();
    for ((view, args), found) in VIEWS.into_iter().zip(found) {
        assert_eq!(found["view"], view);
        let output = without(directory, run_view(view, args));
        let stderr = text(&output.stderr);
        let runs = output.status.success();
        assert_eq!(found["runs"], runs, "{view}: {stderr}{report}");
        if runs {
            assert!(found.get("problem").is_none(), "{found}");
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(output.stdout.is_empty(), "{view}: not before it could run");
        let problem = found["problem"].as_str().unwrap();
        assert_eq!(stderr, format!("tcp-tools: {problem}\n"), "{view}");
        assert!(table.contains(problem), "{problem}\n{table}");
        failing.push((view, stderr));
    }
    assert_eq!(code == Some(0), failing.is_empty(), "{report}");
    assert_eq!(report["ok"] == true, failing.is_empty(), "{report}");
    assert_eq!(table.contains("All views can run."), failing.is_empty());
    failing
}

#[test]
fn all_views_run_where_nothing_is_masked() {
    assert_eq!(failing(None), []);
}

#[test]
fn masked_proc_is_named_by_doctor_and_the_views_that_need_it() {
    let failing = failing(Some(c"/proc"));
    let names: Vec<_> = failing.iter().map(|(view, _)| *view).collect();
    for view in ["tcplife", "tcpretrans", "tcptop", "sockets"] {
        assert!(names.contains(&view), "{names:?}");
    }
    assert!(!names.contains(&"tcpaccept"), "{names:?}");
    for (view, stderr) in failing {
        assert!(
            stderr.contains("/proc is not mounted here"),
            "{view}: {stderr}"
        );
        assert!(
            stderr.contains("mount -t proc proc /proc"),
            "{view}: {stderr}"
        );
        assert!(!stderr.contains("os error"), "{view}: {stderr}");
    }
}

#[test]
fn what_is_not_known_without_proc_is_not_claimed() {
    let (_, report, table) = doctor(Some(c"/proc"));
    let (_, seen, _) = doctor(None);
    assert_eq!(report["kernel"], seen["kernel"]);
    assert_eq!(report["capabilities"], seen["capabilities"]);
    assert_eq!(
        report["pid_namespace"],
        serde_json::json!({"initial": null})
    );
    assert!(!table.contains("the initial one"), "{table}");
}

#[test]
fn options_that_need_proc_say_so() {
    for args in [
        &["--", "true"][..],
        &["--all", "--", "true"],
        &["--pid", "1"],
        &["--netns", "1"],
        &["--netns", "4026531840"],
    ] {
        let output = without(Some(c"/proc"), run_view("tcpconnect", args));
        let stderr = text(&output.stderr);
        assert!(
            matches!(output.status.code(), Some(1 | 2)),
            "{args:?}: {stderr}"
        );
        assert!(
            stderr.contains("/proc is not mounted here"),
            "{args:?}: {stderr}"
        );
    }
}

#[test]
fn masked_sys_is_not_a_kernel_without_btf() {
    let failing = failing(Some(c"/sys"));
    assert_eq!(failing.len(), VIEWS.len(), "{failing:?}");
    let (_, report, table) = doctor(Some(c"/sys"));
    let said = failing.iter().map(|(_, stderr)| stderr.as_str());
    for said in said.chain([table.as_str()]) {
        assert!(said.contains("/sys/kernel/btf/vmlinux"), "{said}");
        assert!(said.contains("sysfs is not mounted on /sys here"), "{said}");
        assert!(said.contains("mount -t sysfs sysfs /sys"), "{said}");
        assert!(said.contains("--btf FILE"), "{said}");
        assert!(!said.contains("built without BTF"), "{said}");
        assert!(!said.contains("the running kernel's"), "{said}");
    }
    assert_eq!(report["btf"]["source"], Value::Null, "{report}");
    assert_eq!(report["cgroup2"], false, "{report}");
}

#[test]
fn masked_sys_is_not_a_kernel_without_kprobes() {
    let directory = tempfile::tempdir().unwrap();
    let btf = directory.path().join("vmlinux");
    std::fs::write(&btf, std::fs::read("/sys/kernel/btf/vmlinux").unwrap()).unwrap();
    let mut command = Command::new(tcp_tools_tests::tool());
    let args = ["doctor", "--json", "--hooks", "kprobe", "--btf"];
    command.args(args).arg(&btf);
    let output = without(Some(c"/sys"), command);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["btf"]["source"], btf.to_str().unwrap());
    let points = report["points"].as_array().unwrap();
    let refused = points
        .iter()
        .flat_map(|it| it["refused"].as_array().unwrap());
    let reasons: Vec<_> = refused
        .filter(|it| it["mechanism"].as_str().unwrap().starts_with("kprobe "))
        .map(|it| it["reason"].as_str().unwrap())
        .collect();
    assert!(!reasons.is_empty(), "{report}");
    for reason in reasons {
        assert!(
            reason.contains("sysfs is not mounted on /sys here"),
            "{reason}"
        );
    }
}
