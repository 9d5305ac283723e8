//! What goes wrong, by the name of the call.

use std::collections::VecDeque;

/// What happens to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this code and reason; not carried out.
    Refuse { code: u16, reason: &'static str, message: &'static str, retry_after_seconds: u32 },
    /// Answered as a proxy would that cannot reach the API server: no JSON.
    BadGateway,
    /// The connection is cut before the call is carried out.
    ResetBefore,
    /// It is carried out, and the connection is cut instead of an answer.
    ResetAfter,
    /// Neither carried out nor answered, as long as the client waits.
    HangBefore,
    /// Carried out, and not answered as long as the client waits.
    HangAfter,
    /// Half of the answer, then the connection is cut.
    HalfAnswer,
    /// A list as it was so many changes ago.
    Stale { changes: u64 },
    /// Carried out, but only after everything that is asked in this many following calls.
    Late { calls: usize },
    /// A watch that begins well and then goes wrong.
    Stream(StreamFault),
}

/// What happens to a watch that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamFault {
    /// The next event is lost; a bookmark says that all is told.
    Drop,
    /// Every event is lost, as long as it lasts; bookmarks say that all is told.
    BookmarksOnly,
    /// It ends after the next event.
    End,
    /// It ends at once, each time.
    EndAtOnce,
    /// Instead of the next event it says that it is too old.
    Gone,
    /// Instead of the next event it says that the server has an internal error.
    Internal,
    /// The connection is cut in the middle of the next event.
    Cut,
    /// It says nothing more, and does not end when it should.
    Silent,
    /// The next event comes twice.
    Twice,
}

impl StreamFault {
    pub const ALL: [Self; 9] = [
        Self::Drop,
        Self::BookmarksOnly,
        Self::End,
        Self::EndAtOnce,
        Self::Gone,
        Self::Internal,
        Self::Cut,
        Self::Silent,
        Self::Twice,
    ];
}

impl Fault {
    pub const CONFLICT: Self =
        Self::refuse(409, "Conflict", "the object has been modified; please apply your changes to the latest version");
    pub const GONE: Self = Self::refuse(410, "Expired", "The provided continue parameter is too old");
    pub const BUSY: Self =
        Self::Refuse { code: 429, reason: "TooManyRequests", message: "too many requests", retry_after_seconds: 1 };
    pub const INTERNAL: Self = Self::refuse(500, "InternalError", "etcdserver: leader changed");
    pub const UNAVAILABLE: Self =
        Self::refuse(503, "ServiceUnavailable", "the server is currently unable to handle the request");
    pub const UNAUTHORIZED: Self = Self::refuse(401, "Unauthorized", "Unauthorized");
    pub const QUOTA: Self = Self::refuse(
        403,
        "Forbidden",
        "pods \"a\" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=2, limited: pods=2",
    );
    pub const DENIED: Self = Self::refuse(
        403,
        "Forbidden",
        "pods is forbidden: User \"system:serviceaccount:ns:sky\" cannot create resource \"pods\" in API group \"\" in the namespace \"ns\"",
    );
    pub const INVALID: Self =
        Self::refuse(422, "Invalid", "Pod \"a\" is invalid: spec.containers[0].image: Required value");

    const fn refuse(code: u16, reason: &'static str, message: &'static str) -> Self {
        Self::Refuse { code, reason, message, retry_after_seconds: 0 }
    }
}

/// Faults to come, in the order in which they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Script {
    faults: VecDeque<Planned>,
}

#[derive(Debug)]
struct Planned {
    call: String,
    /// Calls that go well before.
    skip: u32,
    fault: Fault,
    times: u32,
}

impl Script {
    pub(crate) fn add(&mut self, call: &str, skip: u32, fault: Fault, times: u32) {
        self.faults.push_back(Planned { call: call.to_owned(), skip, fault, times });
    }

    /// What goes wrong with this call, if anything does.
    pub(crate) fn take(&mut self, call: &str) -> Option<Fault> {
        let planned = self.faults.iter_mut().find(|planned| planned.call == call && planned.times > 0)?;
        if planned.skip > 0 {
            planned.skip -= 1;
            return None;
        }
        planned.times -= 1;
        Some(planned.fault.clone())
    }

    pub(crate) fn left(&self) -> u32 {
        self.faults.iter().map(|planned| planned.times).sum()
    }

    pub(crate) fn clear(&mut self) {
        self.faults.clear();
    }
}
