//! Filters by process: what they let through in each view, and that what they keep out never gets into
//! the ring.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::cgroup::Cgroup;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::row::{Process, Row, this_process};
use tcp_tools_tests::skip;
use tcp_tools_tests::sock::{self, Ends, V4};
use tcp_tools_tests::trace::{Ended, Trace};
use tcp_tools_tests::views::{End, Views, ring};

fn actors() -> [Actor; 3] {
    ["first", "second", "third"].map(Actor::start)
}

fn pid(actor: &Actor) -> u32 {
    actor.process().pid
}

/// Both ends of a session that each has with itself.
fn sessions(actors: &mut [Actor]) -> Vec<End> {
    actors.iter_mut().flat_map(Actor::session).collect()
}

/// A user id that no other test uses.
const UID: u32 = 61_234;

#[test]
fn processes() {
    let netns = Netns::enter_new();
    let mut actors = actors();
    let wanted = [pid(&actors[0]), pid(&actors[2])];
    let list = format!("{},{}", wanted[0], wanted[1]);
    let views = Views::start(&netns, &["--pid", &list]);
    let all = sessions(&mut actors);
    views.expect(&all, |end| wanted.contains(&end.owner.pid));
}

#[test]
fn one_end_of_a_session_between_two_processes() {
    let netns = Netns::enter_new();
    let mut actor = Actor::start("client");
    let pid = pid(&actor).to_string();
    let views = Views::start(&netns, &["-p", &pid]);
    let listener = sock::listen(V4, 1).unwrap();
    let at_client = actor.connect("c", sock::local(&listener).unwrap());
    let server = sock::accept(&listener).unwrap();
    actor.ask("close c");
    sock::drain(&server).unwrap();
    drop(server);
    let all = End::both(at_client, &actor.process(), &this_process());
    views.expect(&all, |end| end.is_client);
}

/// A session that `actor` opens and closes with `commands`, of which `ADDRESS` is this process's; gives
/// its answer as well.
fn session_by(actor: &mut Actor, commands: &str) -> (Ends, String) {
    let listener = sock::listen(V4, 1).unwrap();
    let address = sock::local(&listener).unwrap().to_string();
    actor.tell(&commands.replace("ADDRESS", &address));
    let server = sock::accept(&listener).unwrap();
    let at_client = Ends::of(&server).unwrap().swapped();
    sock::drain(&server).unwrap();
    (at_client, actor.answer())
}

#[test]
fn children_are_followed_if_asked_for() {
    for follow in [true, false] {
        let netns = Netns::enter_new();
        let mut actor = Actor::start("parent");
        let parent = pid(&actor).to_string();
        let args = ["-p", &parent, "--follow"];
        let views = Views::start(&netns, &args[..if follow { 3 } else { 2 }]);
        let (at_client, pid) = session_by(&mut actor, "fork comm child; connect c ADDRESS");
        let child = Process {
            pid: pid.parse().unwrap(),
            comm: "child".into(),
            uid: 0,
        };
        let mut all = End::both(at_client, &child, &this_process()).to_vec();
        all.extend(actor.session());
        let parent = actor.process().pid;
        views.expect(&all, |end| {
            end.owner.pid == parent || follow && end.owner.pid == child.pid
        });
    }
}

#[test]
fn grandchildren_are_followed() {
    let netns = Netns::enter_new();
    let mut actor = Actor::start("parent");
    let parent = pid(&actor).to_string();
    let trace = Trace::view("tcpconnect", &netns, &["-p", &parent, "--follow"]);
    let (at_client, _) = session_by(&mut actor, "fork fork connect c ADDRESS");
    let row = Row::connect(at_client).of(&actor.process());
    trace.expect(&[row.with("pid", Value::Null)]);
}

/// A child that goes on without the thread that it began with; `commands` are what that does at last.
fn followed_beyond_the_first_thread(commands: &str, comm: &str) {
    let netns = Netns::enter_new();
    let mut actor = Actor::start("parent");
    let parent = pid(&actor).to_string();
    let trace = Trace::view("tcpconnect", &netns, &["-p", &parent, "--follow"]);
    let (at_client, pid) = session_by(&mut actor, &format!("fork comm child; {commands}"));
    let child = Process {
        pid: pid.parse().unwrap(),
        comm: comm.into(),
        uid: 0,
    };
    trace.expect(&[Row::connect(at_client).of(&child)]);
}

#[test]
fn process_is_followed_when_its_main_thread_has_ended() {
    followed_beyond_the_first_thread("outlive connect c ADDRESS", "child");
}

#[test]
fn process_is_followed_when_another_thread_has_called_execve() {
    followed_beyond_the_first_thread("thread other exec connect c ADDRESS", "actor");
}

#[test]
fn only_children_born_during_the_trace_are_followed() {
    let netns = Netns::enter_new();
    let me = std::process::id().to_string();
    let before = Actor::start("before");
    let views = Views::start(
        &netns,
        &["-p", &me, "--follow", "--netns", &netns.inode.to_string()],
    );
    let mut actors = [before, Actor::start("after")];
    let all = sessions(&mut actors);
    let after = pid(&actors[1]);
    views.expect(&all, |end| end.owner.pid == after);
}

#[test]
fn users() {
    let netns = Netns::enter_new();
    let mut actors = actors();
    actors[1].set_uid(UID);
    actors[2].set_uid(UID + 1);
    let list = format!("{UID},{}", UID + 2);
    let views = Views::start(&netns, &["--uid", &list]);
    let all = sessions(&mut actors);
    views.expect(&all, |end| end.owner.uid == UID);
}

#[test]
fn user_and_process() {
    let netns = Netns::enter_new();
    let mut actors = actors();
    actors[0].set_uid(UID + 10);
    actors[1].set_uid(UID + 10);
    let wanted = pid(&actors[1]);
    let list = format!("{wanted},{}", pid(&actors[2]));
    let uid = (UID + 10).to_string();
    let views = Views::start(&netns, &["-p", &list, "-u", &uid]);
    let all = sessions(&mut actors);
    views.expect(&all, |end| end.owner.pid == wanted);
}

#[test]
fn cgroup_by_path_or_id_with_all_below_it() {
    let Some(cgroup) = Cgroup::new() else {
        return skip("cgroup2");
    };
    for by_path in [true, false] {
        let netns = Netns::enter_new();
        let mut actors = actors();
        cgroup.take(pid(&actors[0]));
        let id = cgroup.id().to_string();
        let name = if by_path {
            cgroup.path.to_str().unwrap()
        } else {
            &id
        };
        let views = Views::start(&netns, &["--cgroup", name]);
        let below = cgroup.child("born-during-the-trace");
        below.take(pid(&actors[1]));
        let all = sessions(&mut actors);
        let outside = pid(&actors[2]);
        views.expect(&all, |end| end.owner.pid != outside);
        drop(actors);
        drop(below);
    }
}

#[test]
fn cgroup_and_process() {
    let Some(cgroup) = Cgroup::new() else {
        return skip("cgroup2");
    };
    let netns = Netns::enter_new();
    let mut actors = actors();
    cgroup.take(pid(&actors[0]));
    cgroup.take(pid(&actors[1]));
    let wanted = pid(&actors[1]);
    let list = format!("{wanted},{}", pid(&actors[2]));
    let path = cgroup.path.to_str().unwrap();
    let views = Views::start(&netns, &["--cgroup", path, "--pid", &list]);
    let all = sessions(&mut actors);
    views.expect(&all, |end| end.owner.pid == wanted);
    drop(actors);
}

/// A cgroup that looks like a container of Docker's, and its id.
fn container(parent: &Cgroup) -> (Cgroup, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let id = format!("{:032x}{:032x}", now.as_nanos(), std::process::id());
    let id: String = id.chars().rev().collect();
    (parent.child(&format!("docker-{id}.scope")), id)
}

#[test]
fn container_by_the_beginning_of_its_id() {
    let Some(parent) = Cgroup::new() else {
        return skip("cgroup2");
    };
    let netns = Netns::enter_new();
    let (cgroup, id) = container(&parent);
    let mut actors = actors();
    cgroup.take(pid(&actors[0]));
    let views = Views::start(&netns, &["--container", &id[..24]]);
    let all = sessions(&mut actors);
    let inside = pid(&actors[0]);
    views.expect(&all, |end| end.owner.pid == inside);
    drop(actors);
    drop(cgroup);
}

#[test]
fn rows_name_the_container() {
    let Some(parent) = Cgroup::new() else {
        return skip("cgroup2");
    };
    let netns = Netns::enter_new();
    let (cgroup, id) = container(&parent);
    let mut actor = Actor::start("inside");
    cgroup.take(pid(&actor));
    let mut trace = Trace::view("tcpconnect", &netns, &[]);
    actor.session();
    Actor::start("outside").session();
    trace.wait_rows(2);
    let ended = trace.interrupt();
    ended.assert_clean();
    let rows = ended.rows();
    assert_eq!(rows[0]["container"], id, "{}", rows[0]);
    assert_eq!(rows[0]["cgroup_id"], cgroup.id(), "{}", rows[0]);
    assert!(rows[1].get("container").is_none(), "{}", rows[1]);
    drop(actor);
    drop(cgroup);
}

#[test]
fn name_of_the_process_exact_or_with_wildcards() {
    for (pattern, passing) in [
        ("second", &["second"][..]),
        ("*s*", &["first", "second"]),
        ("*ir?", &["third"]),
    ] {
        let netns = Netns::enter_new();
        let mut actors = actors();
        let views = Views::start(&netns, &["--comm", pattern]);
        let all = sessions(&mut actors);
        views.expect_after_ring(&all, |end| passing.contains(&end.owner.comm.as_str()));
    }
}

#[test]
fn name_and_process() {
    let netns = Netns::enter_new();
    let mut actors = actors();
    let list = format!("{},{}", pid(&actors[0]), pid(&actors[1]));
    let views = Views::start(&netns, &["--pid", &list, "--comm", "*ir*"]);
    let all = sessions(&mut actors);
    views.expect_after_ring(&all, |end| end.owner.comm == "first");
}

/// Each of two actors sends a SYN again, and one of the rows passes.
fn retransmit(args: impl Fn(&Actor) -> Vec<String>, prepare: impl Fn(&mut Actor)) -> Ended {
    let netns = Netns::enter_new();
    let mut actors = ["wanted", "other"].map(Actor::start);
    prepare(&mut actors[0]);
    let args = args(&actors[0]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut all = Trace::view("tcpretrans", &netns, &[]);
    let mut trace = Trace::view("tcpretrans", &netns, &[&["-v"], &args[..]].concat());
    let listener = sock::listen(V4, 4).unwrap();
    sock::deafen(&listener).unwrap();
    let remote = sock::local(&listener).unwrap();
    for actor in &mut actors {
        actor.start_connect("c", remote);
    }
    all.wait_rows(2);
    trace.wait_rows(1);
    let ended = trace.interrupt();
    let rows = ended.rows();
    assert!(rows.iter().all(|row| row["comm"] == "wanted"), "{rows:#?}");
    let (submitted, kept_out) = ring(&ended.stderr);
    assert_eq!(submitted, rows.len(), "{}", ended.stderr);
    assert!(kept_out >= 1, "{}", ended.stderr);
    drop(all.interrupt());
    ended
}

#[test]
fn retransmits_of_a_process() {
    retransmit(|actor| vec!["--pid".into(), pid(actor).to_string()], |_| {});
}

#[test]
fn retransmits_of_a_user() {
    let uid = UID + 20;
    retransmit(
        |_| vec!["--uid".into(), uid.to_string()],
        |actor| actor.set_uid(uid),
    );
}
