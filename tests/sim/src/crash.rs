//! Where a run may be made to crash: before or after each opening of the database, durable write, provider call and
//! publication, which are numbered as the run comes to them.

/// On which side of a boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// A crash at one boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashPoint {
    /// From 0. For a second crash: counted from the restart after the first.
    pub boundary: u64,
    pub side: Side,
}

/// Counts boundaries, and says where to crash.
#[derive(Debug, Clone, Default)]
pub(crate) struct Boundaries {
    /// In the order in which they are to come; each counted from the crash before it.
    planned: Vec<CrashPoint>,
    passed: u64,
    pub(crate) total: u64,
    recovery: Option<u64>,
}

impl Boundaries {
    pub(crate) fn with_crashes(planned: &[CrashPoint]) -> Self {
        Self { planned: planned.to_vec(), ..Self::default() }
    }

    /// Comes to the next boundary; says on which side of it the process dies, if it does.
    pub(crate) fn cross(&mut self) -> Option<Side> {
        let here = self.passed;
        self.passed += 1;
        self.total += 1;
        let point = *self.planned.first()?;
        if point.boundary != here {
            return None;
        }
        self.planned.remove(0);
        self.passed = 0;
        self.recovery = None;
        Some(point.side)
    }

    /// The world is as it should be: what the crash before had left to do is done.
    pub(crate) fn note_settled(&mut self) {
        self.recovery.get_or_insert(self.passed);
    }

    /// Boundaries from the restart after the latest crash until all was as it should be again.
    pub(crate) fn of_recovery(&self) -> u64 {
        self.recovery.unwrap_or(self.passed)
    }

    /// Whether every planned crash has come.
    pub(crate) fn all_crashed(&self) -> bool {
        self.planned.is_empty()
    }
}
