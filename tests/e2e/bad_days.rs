//! Bad input and bad days: a clear message before any side effect, and nothing lost.

use crate::home::{TestHome, binary, text};
use crate::load::Load;
use crate::wait;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

fn http_service() -> String {
    crate::home::http_service().to_str().unwrap().to_owned()
}

#[test]
fn a_yaml_that_cannot_be_used_is_refused_before_anything_is_started() {
    let home = TestHome::new();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("empty.yaml"), "").unwrap();
    fs::write(path("latin1.yaml"), b"run: caf\xe9\n").unwrap();
    fs::write(path("torn.yaml"), "service: [1,\n").unwrap();
    fs::write(
        path("typo.yaml"),
        "service:\n  readines_probe: /\n  replicas: 1\nresources:\n  ports: 8080\nrun: sleep 1\n",
    )
    .unwrap();
    fs::write(
        path("fraction.yaml"),
        "service:\n  readiness_probe: /\n  replicas: 2.5\nresources:\n  ports: 8080\nrun: sleep 1\n",
    )
    .unwrap();
    fs::write(path("huge.yaml"), vec![b'#'; 64 << 20]).unwrap();
    fs::create_dir(path("folder.yaml")).unwrap();
    for (name, says) in [
        ("absent.yaml", "absent.yaml"),
        ("folder.yaml", "folder.yaml"),
        ("empty.yaml", "empty"),
        ("latin1.yaml", "UTF-8"),
        ("torn.yaml", "line"),
        ("typo.yaml", "readiness_probe"),
        ("fraction.yaml", "2.5"),
        ("huge.yaml", "huge.yaml"),
    ] {
        let said = home.refused(&["up", "-y", "-n", "web", &path(name)]);
        assert!(said.contains(says), "{name}: {said}");
        assert!(!said.contains("panicked"), "{name}: {said}");
    }
    assert!(home.processes().is_empty(), "nothing was started");
    assert!(!home.serve().join("skyserve.db").exists(), "nothing was stored");
}

#[test]
fn what_cannot_be_done_here_yet_is_refused_by_up_and_accepted_with_a_warning_by_check() {
    let home = TestHome::new();
    let yaml = home.yaml(
        "nodes.yaml",
        "service:\n  readiness_probe: /\n  replicas: 1\nnum_nodes: 2\nresources:\n  ports: 8080\nrun: sleep 1\n",
    );
    let said = home.refused(&["up", "-y", "-n", "web", yaml.to_str().unwrap()]);
    assert!(said.contains("num_nodes"), "{said}");
    assert!(home.processes().is_empty());
    let checked: serde_json::Value =
        serde_json::from_str(&home.ok(&["check", "-o", "json", yaml.to_str().unwrap()])).unwrap();
    assert_eq!(checked["verdict"], "accepted");
    for list in ["warnings", "up_refuses"] {
        assert!(checked[list].to_string().contains("num_nodes"), "{checked:#}");
    }
}

#[test]
fn a_port_in_use_is_passed_over() {
    let home = TestHome::new();
    let config = fs::read_to_string(home.path().join(".sky/config.yaml")).unwrap();
    let first: u16 = config.split("ports: ").nth(1).unwrap().split('-').next().unwrap().parse().unwrap();
    let taken = TcpListener::bind(("127.0.0.1", first)).unwrap();
    let endpoint = home.up("web", Path::new(&http_service()));
    assert!(!endpoint.ends_with(&format!(":{first}")), "{endpoint}");
    drop(taken);
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}

#[test]
fn a_slip_in_the_configuration_meets_nobody_who_is_running() {
    let home = TestHome::new();
    let endpoint = home.up("web", Path::new(&http_service()));
    let config = home.path().join(".sky/config.yaml");
    let before = fs::read_to_string(&config).unwrap();
    fs::write(&config, "serve:\n  load_balancer:\n    threads: many\n").unwrap();
    // Roles that restart, and a runtime that starts anew, go on with what was in force.
    for role in ["loadbalancer", "controller", "init"] {
        home.role(role).kill(nix::sys::signal::Signal::SIGKILL);
        let output = home.run(&["status", "web"]);
        assert!(output.status.success(), "after {role}: {}", text(&output.stderr));
        home.wait_for_status("web", "READY");
        assert_eq!(home.endpoint("web"), endpoint);
        let address = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        wait::until("the endpoint to answer", || crate::load::get_once(address).map_err(|error| error.to_string()));
    }
    let said = home.refused(&["up", "-y", "-n", "other", &http_service()]);
    assert!(said.contains("threads") && said.contains("line 3"), "who asks for something new is told: {said}");
    let warned = text(&home.run(&["status"]).stderr);
    assert!(warned.contains("threads") && warned.contains("goes on"), "{warned}");
    fs::write(&config, before.replace("drain_seconds: 20", "drain_seconds: 21")).unwrap();
    let warned = text(&home.run(&["status"]).stderr);
    assert!(warned.contains("has changed"), "{warned}");
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}

#[test]
fn a_configuration_that_does_not_say_where_to_look_is_refused_by_whoever_looks() {
    let home = TestHome::new();
    // A home that has had services here, and now has them on a cluster.
    home.up("web", Path::new(&http_service()));
    home.ok(&["down", "-y", "web"]);
    let yaml = http_service();
    let looks: [&[&str]; 6] = [
        &["up", "-y", "-n", "web", &yaml],
        &["update", "-y", "web", &yaml],
        &["status"],
        &["logs", "web", "--controller"],
        &["down", "-y", "-a"],
        &["down", "-y", "--purge", "sky-serve-controller"],
    ];
    let config = home.path().join(".sky/config.yaml");
    for (wrong, named) in [
        (
            "serve:\n  controller:\n    resources:\n      cloud: kubernetes\nkubernetes:\n  ports: nodepor\n",
            "config.yaml line 6: kubernetes.ports: ",
        ),
        (
            "serve:\n  controller:\n    resources:\n      cloud: aws\n",
            "config.yaml line 4: serve.controller.resources.cloud: aws",
        ),
    ] {
        fs::write(&config, wrong).unwrap();
        for arguments in looks {
            let said = home.refused(arguments);
            assert!(said.contains(named), "{arguments:?}: {said}");
        }
        let warned = text(&home.run(&["check", &yaml]).stderr);
        assert!(warned.contains(named), "{warned}");
        for arguments in [&["check", &yaml[..]][..], &["--version"], &["status", "--help"]] {
            home.ok(arguments);
        }
        assert!(home.processes().is_empty(), "nothing was started");
    }
}

#[test]
fn a_second_runtime_on_the_same_home_is_refused_and_the_first_goes_on() {
    let home = TestHome::new();
    home.up("web", Path::new(&http_service()));
    let init = home.role("init");
    let second = home.command(binary()).arg("init").output().unwrap();
    assert!(!second.status.success());
    assert!(text(&second.stderr).contains(&init.pid.to_string()), "it names who runs: {}", text(&second.stderr));
    home.wait_for_status("web", "READY");
    assert_eq!(home.role("init").pid, init.pid);
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}

#[test]
fn a_database_of_a_newer_version_is_left_as_it_is_and_traffic_goes_on() {
    let home = TestHome::new();
    let endpoint = home.up("web", Path::new(&http_service()));
    let database = home.serve().join("skyserve.db");
    let version: String = {
        let sql = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); v = c.execute('PRAGMA user_version').fetchone()[0]; \
                   c.execute(f'PRAGMA user_version = {int(sys.argv[2]) if len(sys.argv) > 2 else v}'); c.commit(); print(v)";
        let python = |arguments: &[&str]| {
            let output =
                home.command("python3").args(["-c", sql, database.to_str().unwrap()]).args(arguments).output().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            text(&output.stdout).trim().to_owned()
        };
        let version = python(&[]);
        python(&["9999"]);
        version
    };
    home.role("controller").kill(nix::sys::signal::Signal::SIGKILL);
    wait::until("the controller to say that the database is newer", || {
        let logs = home.logs();
        if logs.contains("newer") || logs.contains("9999") { Ok(()) } else { Err(logs) }
    });
    let load = Load::start(&endpoint, 2);
    let shown = home.ok(&["status"]);
    assert!(shown.contains("CONTROLLER_FAILED"), "{shown}");
    assert!(shown.contains(&endpoint), "the endpoint is still named: {shown}");
    let outcomes = load.finish();
    assert!(outcomes.ok > 0 && outcomes.failed() == 0, "{outcomes:?}");
    let sql = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(f'PRAGMA user_version = {int(sys.argv[2])}'); c.commit()";
    home.command("python3").args(["-c", sql, database.to_str().unwrap(), &version]).status().unwrap();
    home.wait_for_status("web", "READY");
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}

#[test]
fn a_home_that_cannot_be_written_is_named() {
    if nix::unistd::geteuid().is_root() {
        // Root writes anywhere: a file in the folder's place is what stops it.
        let home = TestHome::new();
        fs::write(home.serve(), "in the way").unwrap();
        let said = home.refused(&["up", "-y", "-n", "web", &http_service()]);
        assert!(said.contains(".sky/serve"), "{said}");
        assert!(home.processes().is_empty());
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let home = TestHome::new();
    fs::set_permissions(home.path().join(".sky"), fs::Permissions::from_mode(0o500)).unwrap();
    let said = home.refused(&["up", "-y", "-n", "web", &http_service()]);
    assert!(said.contains(".sky"), "{said}");
    fs::set_permissions(home.path().join(".sky"), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(home.processes().is_empty());
}

/// A small file system for the home, in a mount namespace of its own: root can make one anywhere.
#[test]
fn a_full_disk_stops_decisions_and_not_traffic_and_ends_by_itself() {
    if !nix::unistd::geteuid().is_root() {
        println!("only root can make a small file system: this part did not run");
        return;
    }
    let home = TestHome::new();
    let small = home.path();
    let mounted = home
        .command("mount")
        .args(["-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", small.to_str().unwrap()])
        .status()
        .unwrap();
    assert!(mounted.success());
    let unmount = Unmount(small.clone());
    fs::create_dir_all(small.join(".sky")).unwrap();
    home.configure("");
    let endpoint = home.up("web", Path::new(&http_service()));
    let filler = small.join("filler");
    let filled = home
        .command("dd")
        .args(["if=/dev/zero", &format!("of={}", filler.display()), "bs=64k"])
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(!filled.success(), "the disk is full");
    let load = Load::start(&endpoint, 2);
    let said = home.refused(&["up", "-y", "-n", "other", &http_service()]);
    assert!(said.contains("full") || said.contains("space"), "{said}");
    let outcomes = load.finish();
    assert!(outcomes.ok > 0 && outcomes.failed() == 0, "{outcomes:?}");
    fs::remove_file(&filler).unwrap();
    home.up("other", Path::new(&http_service()));
    home.ok(&["down", "-y", "-a"]);
    home.assert_nothing_left();
    drop(unmount);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The lease cannot help where locks do not work; here the lock's file is taken away.
#[test]
fn a_controller_that_was_stopped_while_another_took_over_ends_though_it_has_nothing_to_do() {
    use nix::sys::signal::Signal;
    let home = TestHome::new();
    let endpoint = home.up("web", Path::new(&http_service()));
    let replica = home.wait_for_ready_replicas("web", 1).remove(0);
    let load = Load::start(&endpoint, 2);
    let old = home.role("controller");
    old.kill(Signal::SIGSTOP);
    fs::remove_file(home.serve().join("controller.lock")).unwrap();
    let mut other = home.command(binary()).arg("controller").spawn().unwrap();
    wait::until_true("the other one to take over", || home.ok(&["status", "-o", "json"]).contains("\"READY\""));
    old.kill(Signal::SIGCONT);
    wait::until_true("the old one to end", || crate::processes::state(old.pid).is_none());
    let found = home.wait_for_ready_replicas("web", 1).remove(0);
    assert_eq!((&found["id"], &found["address"]), (&replica["id"], &replica["address"]), "nothing was ended twice");
    other.kill().unwrap();
    other.wait().unwrap();
    // Init's next one goes on from there.
    home.wait_for_status("web", "READY");
    let outcomes = load.finish();
    assert_eq!(outcomes.failed(), 0, "{outcomes:?}");
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}

#[test]
fn a_damaged_database_is_restored_from_its_copy_and_neither_traffic_nor_the_replica_notices() {
    let home = TestHome::new();
    let endpoint = home.up("web", Path::new(&http_service()));
    let copies = home.serve().join("backups");
    wait::until_true("a copy of the database with the replica", || {
        let files = fs::read_dir(&copies).into_iter().flatten().flatten().map(|entry| entry.path());
        let finished = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("skyserve-"));
        finished.flat_map(fs::read).any(|bytes| bytes.windows(7).any(|text| text == b"web-1-1"))
    });
    let replica = home.wait_for_ready_replicas("web", 1).remove(0);
    let load = Load::start(&endpoint, 4);
    let database = home.serve().join("skyserve.db");
    for name in ["skyserve.db", "skyserve.db-wal"] {
        let path = database.with_file_name(name);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, vec![0x5a; bytes.len()]).unwrap();
    }
    let controller = home.role("controller");
    controller.kill(nix::sys::signal::Signal::SIGKILL);
    wait::until_true("the damaged database to be put aside", || {
        database.with_file_name("damaged/1/skyserve.db").exists()
    });
    home.wait_for_status("web", "READY");
    let found = home.wait_for_ready_replicas("web", 1).remove(0);
    assert_eq!((&found["id"], &found["address"]), (&replica["id"], &replica["address"]), "it is the same replica");
    let outcomes = load.finish();
    assert_eq!(outcomes.failed(), 0, "{outcomes:?}");
    let log = home.ok(&["logs", "web", "--controller", "--no-follow"]);
    assert!(log.contains("was damaged and was restored from"), "{log}");
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}
