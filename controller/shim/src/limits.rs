//! Memory and CPU limits by control group, where this user may make one: version 2 in a delegated
//! subtree, or version 1. A limit that cannot be set is reported, and the replica runs without it.

use nix::unistd::Pid;
use skyserve_model::launch::{Amount, LaunchSpec};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The period over which CPU time is counted: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// The least CPU time per period that the kernel accepts.
const CPU_QUOTA_US_MIN: u64 = 1_000;
/// How long the kernel may take to let go of a group whose last process has ended.
const REMOVE_WAIT_MS_MAX: u64 = 1_000;

/// What a replica may use at most; `None` is without limit.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Wanted {
    memory_bytes: Option<u64>,
    cpu_quota_us: Option<u64>,
}

impl Wanted {
    /// `2+` asks for two or more, so it limits nothing. A GB is 2³⁰ bytes, as in SkyPilot's requests.
    fn of(spec: &LaunchSpec) -> Self {
        let exact = |amount: Option<Amount>| amount.filter(|amount| !amount.or_more).map(|amount| amount.value);
        Self {
            memory_bytes: exact(spec.memory_gb).map(|gb| (gb * f64::from(1 << 30)) as u64),
            cpu_quota_us: exact(spec.cpus).map(|cores| ((cores * CPU_PERIOD_US as f64) as u64).max(CPU_QUOTA_US_MIN)),
        }
    }
}

/// The control groups of one replica.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(crate) groups: Vec<PathBuf>,
    /// Limits that could not be set, for a person.
    pub(crate) notes: Vec<String>,
}

impl Limits {
    /// Makes the groups that the launch's limits need.
    pub(crate) fn set(spec: &LaunchSpec) -> Self {
        let mut limits = Self::default();
        let wanted = Wanted::of(spec);
        if wanted.memory_bytes.is_none() && wanted.cpu_quota_us.is_none() {
            return limits;
        }
        let name = format!("skyserve-{}", spec.uid);
        let found = Hierarchies::read();
        if let Err(error) = found.and_then(|hierarchies| limits.make(&hierarchies, wanted, &name)) {
            limits.notes.push(format!("cpus and memory are not limited: {error}"));
        }
        limits
    }

    fn make(&mut self, hierarchies: &Hierarchies, wanted: Wanted, name: &str) -> io::Result<()> {
        if let Some((mount, own)) = &hierarchies.version_2
            && self.make_version_2(mount, own, wanted, name).is_ok()
        {
            return Ok(());
        }
        if let Some(bytes) = wanted.memory_bytes {
            let parent = hierarchies.version_1("memory")?;
            self.make_version_1(&parent, name, "memory.limit_in_bytes", &bytes.to_string())?;
        }
        if let Some(quota) = wanted.cpu_quota_us {
            let parent = hierarchies.version_1("cpu")?;
            self.make_version_1(&parent, name, "cpu.cfs_quota_us", &quota.to_string())?;
        }
        Ok(())
    }

    /// Beside our own group, since a group with processes cannot hand controllers to groups below it.
    fn make_version_2(&mut self, mount: &Path, own: &Path, wanted: Wanted, name: &str) -> io::Result<()> {
        let settings = [
            ("memory", "memory.max", wanted.memory_bytes.map(|bytes| bytes.to_string())),
            ("cpu", "cpu.max", wanted.cpu_quota_us.map(|quota| format!("{quota} {CPU_PERIOD_US}"))),
        ];
        let parents = own.ancestors().skip(usize::from(own != mount)).take_while(|path| path.starts_with(mount));
        for parent in parents {
            for (controller, _, value) in &settings {
                if value.is_some() {
                    // Enabled already, or not ours to enable: the limit's own file tells.
                    let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
                }
            }
            let group = parent.join(name);
            if fs::create_dir(&group).is_err() && !group.is_dir() {
                continue;
            }
            let set = settings.iter().try_for_each(|(_, file, value)| {
                value.as_ref().map_or(Ok(()), |value| fs::write(group.join(file), value))
            });
            if set.is_ok() {
                self.groups.push(group);
                return Ok(());
            }
            let _ = fs::remove_dir(&group);
        }
        Err(io::Error::other("no control group of this user's own"))
    }

    fn make_version_1(&mut self, parent: &Path, name: &str, file: &str, value: &str) -> io::Result<()> {
        let group = parent.join(name);
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", group.display()));
        match fs::create_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => self.groups.push(group.clone()),
        }
        fs::write(group.join(file), value).map_err(failed)
    }

    /// Puts a process and all it will start into the groups.
    pub(crate) fn apply(&mut self, process: Pid) {
        for group in &self.groups {
            if let Err(error) = fs::write(group.join("cgroup.procs"), process.to_string()) {
                self.notes.push(format!("not limited by {}: {error}", group.display()));
            }
        }
    }

    /// Whether the kernel killed a process of the replica for its memory.
    pub(crate) fn was_out_of_memory(&self) -> bool {
        self.groups.iter().any(|group| {
            ["memory.events", "memory.oom_control"].iter().any(|file| {
                fs::read_to_string(group.join(file)).is_ok_and(|text| {
                    text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
                })
            })
        })
    }
}

/// Removes control groups once no process is left in them.
pub fn remove_groups(groups: &[PathBuf]) {
    let deadline = Instant::now() + Duration::from_millis(REMOVE_WAIT_MS_MAX);
    for group in groups {
        while let Err(error) = fs::remove_dir(group) {
            let busy = error.kind() == io::ErrorKind::ResourceBusy;
            if !busy || Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Where this process is in the machine's control groups.
#[derive(Debug, PartialEq)]
struct Hierarchies {
    /// Mount point, and our own group as a full path.
    version_2: Option<(PathBuf, PathBuf)>,
    /// Controllers and our own group of each.
    version_1: Vec<(String, PathBuf)>,
}

impl Hierarchies {
    fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?, &fs::read_to_string("/proc/self/cgroup")?))
    }

    fn parse(mounts: &str, memberships: &str) -> Self {
        let mut all = Self { version_2: None, version_1: Vec::new() };
        for mount in mounts.lines() {
            let Some((front, back)) = mount.split_once(" - ") else { continue };
            let (front, back): (Vec<_>, Vec<_>) = (front.split(' ').collect(), back.split(' ').collect());
            let ([_, _, _, root, point, ..], [kind, _, options]) = (&front[..], &back[..]) else { continue };
            // Our group is named from the root of the hierarchy, the mount may begin further down.
            let place = |group: &str| {
                let below = Path::new(group).strip_prefix(root).unwrap_or(Path::new(""));
                Path::new(point).join(below)
            };
            for membership in memberships.lines() {
                let mut parts = membership.splitn(3, ':').skip(1);
                let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
                if *kind == "cgroup2" && controllers.is_empty() {
                    all.version_2 = Some((PathBuf::from(point), place(group)));
                } else if *kind == "cgroup" {
                    let names = controllers.split(',').filter(|name| options.split(',').any(|option| option == *name));
                    all.version_1.extend(names.map(|name| (name.to_owned(), place(group))));
                }
            }
        }
        all
    }

    fn version_1(&self, controller: &str) -> io::Result<PathBuf> {
        self.version_1
            .iter()
            .find(|(name, _)| name == controller)
            .map(|(_, path)| path.clone())
            .ok_or_else(|| io::Error::other(format!("this user may not make control groups for {controller}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;

    #[test]
    fn both_versions_are_found_where_they_are_mounted() {
        let found = Hierarchies::parse(
            "30 23 0:26 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n\
             31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             32 23 0:28 /docker/7 /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             33 23 0:29 / /proc rw - proc proc rw\n",
            "4:memory:/a/b\n3:cpu,cpuacct:/docker/7/x\n0::/user.slice/me\n",
        );
        assert_eq!(
            found.version_2,
            Some(("/sys/fs/cgroup/unified".into(), "/sys/fs/cgroup/unified/user.slice/me".into()))
        );
        assert_eq!(found.version_1("memory").unwrap(), Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(found.version_1("cpu").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/x"));
        assert!(found.version_1("pids").is_err());
    }

    #[test]
    fn an_amount_or_more_limits_nothing() {
        let mut spec = spec("svc-1-1", 80);
        spec.cpus = Some(Amount { value: 0.5, or_more: false });
        spec.memory_gb = Some(Amount { value: 2.0, or_more: true });
        assert_eq!(Wanted::of(&spec), Wanted { memory_bytes: None, cpu_quota_us: Some(50_000) });
    }
}
