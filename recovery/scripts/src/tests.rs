use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;

use super::*;

fn home_in(temp: &tempfile::TempDir) -> Home {
    Home::at(temp.path().join("home"), temp.path().join("run"))
}

fn id(number: u64) -> RunId {
    RunId::new(number).unwrap()
}

#[test]
fn scripts_come_back_whole_and_in_numeric_order() {
    let temp = tempfile::tempdir().unwrap();
    let scripts = Scripts::new(home_in(&temp));
    scripts.persist_setup(b"echo setup\n").unwrap();
    for number in [10, 9, 100, 1] {
        scripts.persist_run(id(number), format!("echo {number}").as_bytes()).unwrap();
    }
    let replay = scripts.replay().unwrap();
    let ids: Vec<u64> = replay.runs.iter().map(|(id, _)| id.number()).collect();
    assert_eq!(ids, [1, 9, 10, 100]);
    assert_eq!(fs::read(replay.setup.unwrap()).unwrap(), b"echo setup\n");
    assert_eq!(fs::read(&replay.runs[2].1).unwrap(), b"echo 10");
    assert_eq!(fs::metadata(&replay.runs[0].1).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_home_without_scripts_has_nothing_to_replay_and_is_a_first_start() {
    let temp = tempfile::tempdir().unwrap();
    let replay = Scripts::new(home_in(&temp)).replay().unwrap();
    assert_eq!(replay.start, Start::First);
    assert!(replay.setup.is_none() && replay.runs.is_empty() && replay.damaged.is_empty());
}

#[test]
fn the_marker_turns_a_first_start_into_a_restart() {
    let temp = tempfile::tempdir().unwrap();
    let scripts = Scripts::new(home_in(&temp));
    assert_eq!(scripts.start().unwrap(), Start::First);
    scripts.mark_ready().unwrap();
    scripts.mark_ready().unwrap();
    assert_eq!(scripts.start().unwrap(), Start::Restart);
    assert!(home_in(&temp).ready_marker().is_file());
}

#[test]
fn damaged_scripts_are_reported_and_hide_no_other() {
    let temp = tempfile::tempdir().unwrap();
    let home = home_in(&temp);
    let scripts = Scripts::new(home.clone());
    scripts.persist_run(id(2), b"true").unwrap();
    let folder = home.run_scripts_dir();
    fs::write(folder.join("sky_job_1"), b"").unwrap();
    fs::write(folder.join("sky_job_3"), b"echo a\0\0\0").unwrap();
    fs::write(folder.join("sky_job_4"), vec![b'x'; SCRIPT_BYTES_MAX + 1]).unwrap();
    fs::create_dir(folder.join("sky_job_5")).unwrap();
    fs::write(home.setup_script(), b"").unwrap();
    let replay = scripts.replay().unwrap();
    assert_eq!(replay.runs, [(id(2), folder.join("sky_job_2"))]);
    assert!(replay.setup.is_none());
    let damages: Vec<&Damage> = replay.damaged.iter().map(|damaged| &damaged.damage).collect();
    assert_eq!(damages[..4], [&Damage::Empty, &Damage::Empty, &Damage::Nul { offset: 6 }, &Damage::TooLong]);
    assert!(matches!(damages[4], Damage::Unreadable(_)));
}

/// Changes a file as a rotten disk does: nobody has written it.
fn rot(path: &Path, bytes: &[u8]) {
    let written = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, bytes).unwrap();
    fs::File::open(path).unwrap().set_modified(written).unwrap();
}

/// A folder for a home, unless its file system has no extended attributes.
fn folder_that_keeps_sums() -> Option<tempfile::TempDir> {
    let temp = tempfile::tempdir().unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let kept = rustix::fs::setxattr(temp.path(), "user.skyserve.test", b"x", flags);
    if let Err(error) = kept {
        eprintln!("not tested: {} has no extended attributes ({error})", temp.path().display());
    }
    kept.is_ok().then_some(temp)
}

#[test]
fn a_script_that_a_disk_has_changed_is_reported_and_one_that_somebody_has_edited_is_run() {
    let Some(temp) = folder_that_keeps_sums() else { return };
    let scripts = Scripts::new(home_in(&temp));
    let setup = scripts.persist_setup(b"echo setup").unwrap();
    let runs = [1, 2, 3, 4].map(|number| scripts.persist_run(id(number), b"echo run").unwrap());
    let damaged = || -> Vec<PathBuf> {
        let replay = scripts.replay().unwrap();
        assert!(replay.damaged.iter().all(|damaged| damaged.damage == Damage::Changed), "{:?}", replay.damaged);
        replay.damaged.into_iter().map(|damaged| damaged.path).collect()
    };
    assert_eq!(damaged(), [] as [PathBuf; 0]);
    rot(&setup, b"echo setuq");
    rot(&runs[0], b"echo");
    // In place, and as editors do it; then one that another tool wrote.
    fs::write(&runs[1], b"echo edited").unwrap();
    fs::remove_file(&runs[2]).unwrap();
    fs::write(&runs[2], b"echo replaced").unwrap();
    fs::write(scripts.run_path(id(9)), b"echo other").unwrap();
    assert_eq!(damaged(), [setup.clone(), runs[0].clone()]);
    // What the message says helps.
    fs::File::open(&setup).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    scripts.persist_run(id(1), b"echo run").unwrap();
    assert_eq!(damaged(), [] as [PathBuf; 0]);
}

/// How many of the ways to change a script go unnoticed, with its checksum and without.
fn unnoticed(changed: impl Iterator<Item = Vec<u8>>) -> Option<(usize, usize)> {
    let temp = folder_that_keeps_sums()?;
    let scripts = Scripts::new(home_in(&temp));
    let other = scripts.run_path(id(2));
    let (mut with, mut without) = (0, 0);
    let path = scripts.persist_run(id(1), SCRIPT).unwrap();
    for bytes in changed {
        rot(&path, &bytes);
        with += usize::from(scripts.check(&path).is_ok());
        fs::write(&other, &bytes).unwrap();
        without += usize::from(scripts.check(&other).is_ok());
    }
    Some((with, without))
}

const SCRIPT: &[u8] = b"cd ~/model && exec python3 -m serve --port 8080\n";

#[test]
fn a_flipped_bit_of_a_script_is_found() {
    let flipped = (0..SCRIPT.len() * 8).map(|bit| {
        let mut bytes = SCRIPT.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    if let Some(counts) = unnoticed(flipped) {
        let blanks = SCRIPT.iter().filter(|byte| **byte == b' ').count();
        assert_eq!(counts, (0, SCRIPT.len() * 8 - blanks), "with its checksum, and without (but for a NUL byte)");
    }
}

#[test]
fn a_script_that_is_cut_anywhere_is_found() {
    if let Some(counts) = unnoticed((0..SCRIPT.len()).map(|length| SCRIPT[..length].to_vec())) {
        assert_eq!(counts, (0, SCRIPT.len() - 1), "with its checksum, and without (but for the empty one)");
    }
}

#[test]
fn leftovers_of_interrupted_writes_are_cleared_and_strangers_files_are_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let home = home_in(&temp);
    let scripts = Scripts::new(home.clone());
    scripts.persist_setup(b"true").unwrap();
    scripts.persist_run(id(1), b"true").unwrap();
    let leftovers = [
        home.run_scripts_dir().join(".sky_job_1.77-0.tmp"),
        home.sky_dir().join("..controller_recovery_setup_commands.sh.77-0.tmp"),
        home.path().join(".k8s_container_ready.77-0.tmp"),
    ];
    let strangers = [home.run_scripts_dir().join("notes"), home.run_scripts_dir().join("sky_job_007")];
    for path in leftovers.iter().chain(&strangers) {
        fs::write(path, b"half a scr").unwrap();
    }
    let replay = scripts.replay().unwrap();
    assert_eq!(replay.cleared.len(), 3);
    assert!(leftovers.iter().all(|path| !path.exists()));
    assert_eq!(replay.ignored, strangers);
    assert_eq!(replay.runs.len(), 1);
}

#[test]
fn what_cannot_be_a_script_is_refused_and_the_one_before_is_kept() {
    let temp = tempfile::tempdir().unwrap();
    let scripts = Scripts::new(home_in(&temp));
    let path = scripts.persist_run(id(1), b"true").unwrap();
    for bad in [b"".as_slice(), b"a\0b", &vec![b'x'; SCRIPT_BYTES_MAX + 1]] {
        assert!(matches!(scripts.persist_run(id(1), bad), Err(ScriptError::Refused { .. })));
    }
    assert_eq!(fs::read(path).unwrap(), b"true");
}

#[test]
fn there_may_be_only_so_many_run_scripts_and_replacing_one_is_still_possible() {
    let temp = tempfile::tempdir().unwrap();
    let home = home_in(&temp);
    fs::create_dir_all(home.run_scripts_dir()).unwrap();
    for number in 0..RUN_SCRIPTS_MAX as u64 + 1 {
        fs::write(home.run_scripts_dir().join(id(number).file_name()), b"true").unwrap();
    }
    let scripts = Scripts::new(home);
    assert!(matches!(scripts.persist_run(id(9999), b"true"), Err(ScriptError::TooMany { .. })));
    scripts.persist_run(id(3), b"false").unwrap();
    let replay = scripts.replay().unwrap();
    assert_eq!((replay.runs.len(), replay.damaged.len()), (RUN_SCRIPTS_MAX, 1));
    assert_eq!(replay.damaged[0].damage, Damage::TooMany);
}

#[test]
fn a_removed_run_script_is_not_replayed_and_removing_it_twice_is_fine() {
    let temp = tempfile::tempdir().unwrap();
    let scripts = Scripts::new(home_in(&temp));
    scripts.persist_run(id(1), b"true").unwrap();
    scripts.remove_run(id(1)).unwrap();
    scripts.remove_run(id(1)).unwrap();
    assert!(scripts.replay().unwrap().runs.is_empty());
}

#[test]
fn an_id_has_exactly_one_spelling() {
    assert_eq!("42".parse::<RunId>().unwrap(), id(42));
    for bad in ["", "-1", "+1", "007", "1.0", "x", "9223372036854775808", "99999999999999999999"] {
        assert!(matches!(bad.parse::<RunId>(), Err(ScriptError::BadId(_))), "{bad}");
    }
}

// ---- a machine that can stop between any two steps -------------------------------------------------------------

type Names = BTreeMap<PathBuf, usize>;

/// A disk with a page cache: what is written is seen at once, but survives a power cut only once synced.
#[derive(Debug, Default, Clone)]
struct Machine {
    seen_bytes: Vec<Vec<u8>>,
    durable_bytes: Vec<Vec<u8>>,
    /// The checksum noted with each file; a power cut keeps it or loses it, like the bytes.
    sums: Vec<Option<String>>,
    seen_names: Names,
    durable_names: Names,
    steps_left: usize,
    forgets_sync_file: bool,
}

#[derive(Debug, Clone)]
struct MachineFiles(Rc<RefCell<Machine>>);

impl MachineFiles {
    /// Counts a step that changes something; past the last one, the machine has stopped.
    fn step<T>(&self, act: impl FnOnce(&mut Machine) -> io::Result<T>) -> io::Result<T> {
        let mut machine = self.0.borrow_mut();
        if machine.steps_left == 0 {
            return Err(io::Error::other("the machine has stopped"));
        }
        machine.steps_left -= 1;
        act(&mut machine)
    }
}

fn not_found<T>(found: Option<T>) -> io::Result<T> {
    found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

impl Files for MachineFiles {
    fn make_dir(&self, _: &Path) -> io::Result<()> {
        self.step(|_| Ok(()))
    }
    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step(|machine| {
            machine.seen_bytes.push(bytes.to_vec());
            machine.durable_bytes.push(Vec::new());
            machine.sums.push(None);
            machine.seen_names.insert(path.to_path_buf(), machine.seen_bytes.len() - 1);
            Ok(())
        })
    }
    fn set_sum(&self, path: &Path, sum: &str) -> io::Result<()> {
        self.step(|machine| {
            let file = *not_found(machine.seen_names.get(path))?;
            machine.sums[file] = Some(sum.to_owned());
            Ok(())
        })
    }
    fn sum(&self, path: &Path) -> io::Result<Option<String>> {
        let machine = self.0.borrow();
        Ok(machine.sums[*not_found(machine.seen_names.get(path))?].clone())
    }
    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.step(|machine| {
            let file = *not_found(machine.seen_names.get(path))?;
            if !machine.forgets_sync_file {
                machine.durable_bytes[file] = machine.seen_bytes[file].clone();
            }
            Ok(())
        })
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|machine| {
            let file = not_found(machine.seen_names.remove(from))?;
            machine.seen_names.insert(to.to_path_buf(), file);
            Ok(())
        })
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step(|machine| {
            machine.durable_names.retain(|name, _| name.parent() != Some(path));
            let seen = machine.seen_names.clone();
            machine.durable_names.extend(seen.into_iter().filter(|(name, _)| name.parent() == Some(path)));
            Ok(())
        })
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(|machine| not_found(machine.seen_names.remove(path)).map(|_| ()))
    }
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let machine = self.0.borrow();
        let here = machine.seen_names.keys().filter(|name| name.parent() == Some(path));
        Ok(here.filter_map(|name| name.file_name()).map(OsStr::to_owned).collect())
    }
    fn read(&self, path: &Path, _: u64) -> io::Result<Vec<u8>> {
        let machine = self.0.borrow();
        Ok(machine.seen_bytes[*not_found(machine.seen_names.get(path))?].clone())
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.0.borrow().seen_names.contains_key(path))
    }
}

impl Machine {
    /// The machine after a power cut in which names or bytes that were not synced reached the disk or did not.
    fn after_power_cut(&self, names_reached_disk: bool, bytes_reached_disk: bool) -> Self {
        let names = if names_reached_disk { self.seen_names.clone() } else { self.durable_names.clone() };
        let bytes = if bytes_reached_disk { self.seen_bytes.clone() } else { self.durable_bytes.clone() };
        Self {
            seen_bytes: bytes.clone(),
            durable_bytes: bytes,
            sums: self.sums.clone(),
            seen_names: names.clone(),
            durable_names: names,
            steps_left: usize::MAX,
            ..Self::default()
        }
    }
}

/// What a run script reads as after the machine stopped at each possible step of replacing it, in each way that
/// the unsynced part may have reached the disk: (whether persisting had returned Ok, what is replayed, what is damaged).
fn outcomes(forgets_sync_file: bool) -> Vec<(bool, Option<Vec<u8>>, usize)> {
    let mut outcomes = Vec::new();
    for steps in 0..20 {
        let machine = Rc::new(RefCell::new(Machine { steps_left: usize::MAX, ..Machine::default() }));
        let scripts = Scripts::with_files(Home::at("/home", "/run"), MachineFiles(Rc::clone(&machine)));
        scripts.persist_run(id(7), b"old").unwrap();
        machine.borrow_mut().steps_left = steps;
        machine.borrow_mut().forgets_sync_file = forgets_sync_file;
        let persisted = scripts.persist_run(id(7), b"new").is_ok();
        for (names, bytes) in [(false, false), (false, true), (true, false), (true, true)] {
            let after = Rc::new(RefCell::new(machine.borrow().after_power_cut(names, bytes)));
            let scripts = Scripts::with_files(Home::at("/home", "/run"), MachineFiles(Rc::clone(&after)));
            let replay = scripts.replay().unwrap();
            let text = replay.runs.first().map(|(_, path)| scripts.files.read(path, 99).unwrap());
            assert!(!after.borrow().seen_names.keys().any(|name| name.to_string_lossy().ends_with(".tmp")));
            outcomes.push((persisted, text, replay.damaged.len()));
        }
    }
    outcomes
}

#[test]
fn a_crash_between_any_two_steps_leaves_the_old_script_or_the_new_one_and_never_loses_a_persisted_one() {
    let outcomes = outcomes(false);
    assert!(outcomes.iter().any(|(persisted, ..)| *persisted) && outcomes.iter().any(|(persisted, ..)| !persisted));
    for (persisted, text, damaged) in outcomes {
        let text = text.expect("the script is there");
        assert!(text == b"new" || (text == b"old" && !persisted), "{text:?} {persisted}");
        assert_eq!(damaged, 0);
    }
}

#[test]
fn the_crash_check_notices_when_the_bytes_are_not_synced_before_the_rename() {
    assert!(outcomes(true).iter().any(|(_, text, damaged)| text.is_none() && *damaged == 1));
}
