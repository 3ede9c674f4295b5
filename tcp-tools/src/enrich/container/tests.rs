use proptest::prelude::*;

use super::*;

const A: &str = "4bf92a5b0c1e7f3a9d8c6b5a493827160f1e2d3c4b5a69788796a5b4c3d2e1f0";
const B: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const UID: &str = "6ad24d9d-7b0a-4c3e-9d7c-2f4e2b8a1c55";
const HASH: &str = "3ba5bc2a3f9c5a6a5d1f5b8d2e6f7a90";

/// `{A}`, `{B}` are ids, `{UID}` is that of a pod, `{UID_}` the same with underscores.
fn path(template: &str) -> String {
    template
        .replace("{A}", A)
        .replace("{B}", B)
        .replace("{UID}", UID)
        .replace("{UID_}", &UID.replace('-', "_"))
        .replace("{HASH}", HASH)
}

#[test]
fn containers_are_found_in_real_paths() {
    for (template, runtime, id) in [
        // Docker: cgroupfs driver, systemd driver, rootless, with init inside, an own parent.
        ("/docker/{A}", Runtime::Docker, A),
        ("/system.slice/docker-{A}.scope", Runtime::Docker, A),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope",
            Runtime::Docker,
            A,
        ),
        (
            "/system.slice/docker-{A}.scope/init.scope",
            Runtime::Docker,
            A,
        ),
        ("/docker/{A}/system.slice/nginx.service", Runtime::Docker, A),
        ("/batch/{A}", Runtime::Other, A),
        (
            "/ecs/0123456789abcdef0123456789abcdef/{A}",
            Runtime::Other,
            A,
        ),
        // containerd.
        ("/default/{A}", Runtime::Other, A),
        ("/system.slice/nerdctl-{A}.scope", Runtime::Containerd, A),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{A}.scope",
            Runtime::Containerd,
            A,
        ),
        ("/kubepods/burstable/pod{UID}/{A}", Runtime::Other, A),
        ("/kubepods/pod{UID}/{A}", Runtime::Other, A),
        (
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice/cri-containerd-{A}.scope",
            Runtime::Containerd,
            A,
        ),
        (
            "/kubepods-burstable-pod{UID_}.slice:cri-containerd:{A}",
            Runtime::Containerd,
            A,
        ),
        (
            "/system.slice/containerd.service/kubepods-besteffort-pod{UID_}.slice:cri-containerd:{A}",
            Runtime::Containerd,
            A,
        ),
        // Docker under Kubernetes.
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/docker-{A}.scope",
            Runtime::Docker,
            A,
        ),
        // CRI-O: both drivers.
        (
            "/kubepods.slice/kubepods-pod{UID_}.slice/crio-{A}.scope",
            Runtime::CriO,
            A,
        ),
        (
            "/kubepods.slice/kubepods-pod{UID_}.slice/crio-{A}.scope/container",
            Runtime::CriO,
            A,
        ),
        ("/kubepods/burstable/pod{UID}/crio-{A}", Runtime::CriO, A),
        // Podman: root, rootless, in a pod, in a unit of its own, cgroupfs driver.
        (
            "/machine.slice/libpod-{A}.scope/container",
            Runtime::Podman,
            A,
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope",
            Runtime::Podman,
            A,
        ),
        (
            "/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope",
            Runtime::Podman,
            A,
        ),
        (
            "/system.slice/web.service/libpod-payload-{A}",
            Runtime::Podman,
            A,
        ),
        ("/libpod_parent/libpod-{A}", Runtime::Podman, A),
        // LXC, LXD, Proxmox.
        ("/lxc.payload.web-1", Runtime::Lxc, "web-1"),
        (
            "/lxc.payload.web-1/system.slice/nginx.service",
            Runtime::Lxc,
            "web-1",
        ),
        ("/lxc.payload/web", Runtime::Lxc, "web"),
        ("/lxc/101/ns/init.scope", Runtime::Lxc, "101"),
        // systemd-machined.
        ("/machine.slice/machine-web.scope", Runtime::Machine, "web"),
        (
            r"/machine.slice/machine-web\x2d1.scope/payload/init.scope",
            Runtime::Machine,
            "web-1",
        ),
        (
            "/machine.slice/systemd-nspawn@web.service/payload",
            Runtime::Machine,
            "web",
        ),
        // A pod itself.
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice",
            Runtime::Pod,
            UID,
        ),
        ("/kubepods/besteffort/pod{UID}", Runtime::Pod, UID),
        ("/kubepods/burstable/pod{HASH}", Runtime::Pod, HASH),
        // Nested: the innermost.
        ("/docker/{B}/docker/{A}", Runtime::Docker, A),
        ("/lxc/101/ns/docker/{A}", Runtime::Docker, A),
        (
            "/docker/{B}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice/cri-containerd-{A}.scope",
            Runtime::Containerd,
            A,
        ),
        (
            "/docker/{A}/machine.slice/libpod-conmon-{B}.scope",
            Runtime::Docker,
            A,
        ),
        // As it is given in other places.
        ("docker/{A}", Runtime::Docker, A),
        ("/docker/{A}/", Runtime::Docker, A),
    ] {
        let path = path(template);
        let id = Cow::Borrowed(id);
        assert_eq!(
            container_of(&path),
            Some(Container { id, runtime }),
            "{path}"
        );
    }
}

#[test]
fn other_cgroups_have_no_container() {
    for template in [
        "",
        "/",
        "/init.scope",
        "/system.slice/docker.service",
        "/system.slice/containerd.service",
        "/user.slice/user-1000.slice/user@1000.service/app.slice",
        "/docker",
        "/docker/buildkit",
        "/kubepods.slice",
        "/kubepods.slice/kubepods-besteffort.slice",
        "/kubepods/burstable",
        "/kubepods.slice/kubepods-burstable.slice/crio-conmon-{A}.scope",
        "/machine.slice/libpod-conmon-{A}.scope",
        "/machine.slice",
        "/machine.slice/machine-.scope",
        "/lxc",
        "/lxc.payload.",
        "/lxc.monitor.web",
        "/podman/podinfo",
        // Mounts of Docker are units too.
        "/system.slice/var-lib-docker-containers-{A}-mounts-shm.mount",
        "/system.slice/run-docker-runtime-{A}-runc.1.mount",
        // One digit too many, one letter that is no digit.
        "/docker/0{A}",
        "/docker/{A}x",
        "/system.slice/docker{A}.scope",
    ] {
        let path = path(template);
        assert_eq!(container_of(&path), None, "{path}");
    }
}

#[test]
fn units_are_unescaped() {
    for (escaped, plain) in [
        ("web", "web"),
        (r"a\x2db\x2dc", "a-b-c"),
        (r"\x2d", "-"),
        (r"a\x2", r"a\x2"),
        (r"a\x", r"a\x"),
        (r"a\xe4b", r"a\xe4b"),
        (r"a\x+fb", r"a\x+fb"),
    ] {
        assert_eq!(unit_unescaped(escaped), plain);
    }
}

proptest! {
    #[test]
    fn no_path_confuses(path in any::<String>()) {
        let _ = container_of(&path);
    }

    #[test]
    fn no_likely_path_confuses(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("/"), Just("docker"), Just("-"), Just(":"), Just(A), Just(".scope"), Just(".slice"),
                Just("kubepods-"), Just("kubepods"), Just("-pod"), Just("pod"), Just(UID), Just("machine-"),
                Just(r"\x"), Just("2d"), Just("é"), Just("lxc"), Just("lxc.payload."), Just("conmon"), Just("a"),
            ],
            0..12,
        ),
    ) {
        let path = parts.concat();
        if let Some(container) = container_of(&path) {
            prop_assert!(!container.id.is_empty());
            prop_assert!(container.id.len() <= path.len());
            prop_assert!(!container.id.contains('/'));
        }
    }
}
