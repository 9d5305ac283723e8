use super::*;
use skyserve_spec::{Command, LoadOptions, Target};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

const SERVICE: &str = "service: {readiness_probe: /}\nresources: {ports: 8080}\nrun: 'true'\n";

fn task(extra: &str) -> TaskSpec {
    let options = LoadOptions {
        command: Command::ServeUp,
        envs: Vec::new(),
        secrets: Vec::new(),
        target: Target::LocalProcesses,
    };
    skyserve_spec::load(format!("{SERVICE}{extra}").as_bytes(), "s.yaml", &options).unwrap().task
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn pack_in(folder: &Path, extra: &str) -> Result<Option<Bundle>, BundleError> {
    pack(&task(extra), folder, Path::new("/nowhere"), folder)
}

/// The name of each entry but folders, with its link target or content.
fn entries(bundle: &Bundle) -> BTreeMap<String, String> {
    use std::io::Seek;
    let mut file = bundle.file.try_clone().unwrap();
    file.rewind().unwrap();
    let mut archive = tar::Archive::new(file);
    let read = |entry: Result<tar::Entry<'_, File>, io::Error>| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        io::Read::read_to_string(&mut entry, &mut text).unwrap();
        let link = entry.link_name().unwrap().map(|target| format!("-> {}", target.display()));
        (name, link.unwrap_or(text))
    };
    let is_file =
        |entry: &Result<tar::Entry<'_, File>, io::Error>| !entry.as_ref().unwrap().header().entry_type().is_dir();
    archive.entries().unwrap().filter(is_file).map(read).collect()
}

fn names(bundle: &Bundle) -> Vec<String> {
    entries(bundle).into_keys().collect()
}

#[test]
fn a_task_without_local_files_has_no_bundle() {
    let temp = tempfile::tempdir().unwrap();
    assert!(pack_in(temp.path(), "").unwrap().is_none());
}

#[test]
fn the_same_files_give_the_same_bytes_whatever_their_times_and_order_of_creation() {
    let digests: Vec<String> = [["a", "b"], ["b", "a"]]
        .iter()
        .map(|order| {
            let temp = tempfile::tempdir().unwrap();
            for name in order {
                write(&temp.path().join("w/sub").join(name), name);
            }
            pack_in(temp.path(), "workdir: w\n").unwrap().unwrap().sha256
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
    let temp = tempfile::tempdir().unwrap();
    write(&temp.path().join("w/sub/a"), "other");
    assert_ne!(pack_in(temp.path(), "workdir: w\n").unwrap().unwrap().sha256, digests[0]);
}

#[test]
fn workdir_and_mounts_are_where_replicas_look_for_them_and_links_stay_links() {
    let temp = tempfile::tempdir().unwrap();
    write(&temp.path().join("w/server.py"), "serve");
    symlink("server.py", temp.path().join("w/latest")).unwrap();
    symlink("w", temp.path().join("link")).unwrap();
    write(&temp.path().join("one.json"), "{}");
    write(&temp.path().join("data/deep").join("x".repeat(150)), "long name");
    let extra = "workdir: link\nfile_mounts:\n  /etc/one.json: one.json\n  ~/data: ./data\n";
    let bundle = pack_in(temp.path(), extra).unwrap().unwrap();
    let entries = entries(&bundle);
    assert_eq!(entries["workdir/server.py"], "serve");
    assert_eq!(entries["workdir/latest"], "-> server.py");
    assert_eq!(entries["mounts/0"], "{}");
    assert_eq!(entries[&format!("mounts/1/deep/{}", "x".repeat(150))], "long name");
    assert_eq!(bundle.bytes, bundle.file.metadata().unwrap().len());
}

#[test]
fn a_skyignore_decides_alone_and_its_slash_means_the_folder_itself() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("w");
    for path in [".git/HEAD", "keep.log", "sub/secret.txt", "secret.txt", "data/big", "sub/data/small"] {
        write(&folder.join(path), "");
    }
    write(&folder.join(".gitignore"), "*.log\n");
    write(&folder.join(".skyignore"), "# comment\nsecret.txt\n/data\n");
    let bundle = pack_in(temp.path(), "workdir: w\n").unwrap().unwrap();
    let expected = [".git/HEAD", ".gitignore", ".skyignore", "keep.log", "sub/data/small"];
    assert_eq!(names(&bundle), expected.map(|name| format!("workdir/{name}")));
}

#[test]
fn a_gitignore_counts_only_inside_a_git_repository_and_a_warning_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("w");
    write(&folder.join("run.log"), "");
    write(&folder.join(".hidden"), "");
    write(&folder.join(".gitignore"), "*.log\n");
    let outside = pack_in(temp.path(), "workdir: w\n").unwrap().unwrap();
    assert_eq!(names(&outside), ["workdir/.gitignore", "workdir/.hidden", "workdir/run.log"]);
    assert!(outside.warnings[0].contains("is in no git repository"), "{:?}", outside.warnings);
    fs::create_dir(temp.path().join(".git")).unwrap();
    let inside = pack_in(temp.path(), "workdir: w\n").unwrap().unwrap();
    assert_eq!(names(&inside), ["workdir/.gitignore", "workdir/.hidden"]);
    assert_eq!(inside.warnings, [""; 0]);
}

#[test]
fn a_missing_path_is_an_error_that_names_field_and_path() {
    let temp = tempfile::tempdir().unwrap();
    let error = pack_in(temp.path(), "workdir: nowhere\n").unwrap_err().to_string();
    assert!(error.starts_with("workdir: ") && error.contains("/nowhere does not exist"), "{error}");
    let error = pack_in(temp.path(), "file_mounts: {/etc/x: ./gone}\n").unwrap_err().to_string();
    assert!(error.starts_with("file_mounts./etc/x: ") && error.contains("gone does not exist"), "{error}");
    write(&temp.path().join("file"), "");
    assert!(matches!(pack_in(temp.path(), "workdir: file\n"), Err(BundleError::NotFolder { .. })));
}

#[test]
fn special_files_are_left_out_with_a_warning_and_modes_are_kept() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("w");
    write(&folder.join("run.sh"), "");
    fs::set_permissions(folder.join("run.sh"), fs::Permissions::from_mode(0o4750)).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(folder.join("s")).unwrap();
    let bundle = pack_in(temp.path(), "workdir: w\n").unwrap().unwrap();
    drop(socket);
    assert_eq!(names(&bundle), ["workdir/run.sh"]);
    assert!(bundle.warnings[0].contains("w/s"), "{:?}", bundle.warnings);
    let mut file = bundle.file.try_clone().unwrap();
    io::Seek::rewind(&mut file).unwrap();
    let modes: Vec<u32> =
        tar::Archive::new(file).entries().unwrap().map(|entry| entry.unwrap().header().mode().unwrap()).collect();
    assert_eq!(modes[1], 0o750);
}
