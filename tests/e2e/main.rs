//! The whole product, as its users run it: the real binary, real processes, real traffic.
//!
//! Each test has a home of its own ([`home::TestHome`]), and nothing is left of it afterwards. Load comes
//! from `oha` where it is installed and from [`load`]'s own threads besides, so that the tests run on a
//! machine with nothing but Rust, bash and python3.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod bad_days;
mod home;
mod kill_everything;
mod kill_under_load;
mod load;
mod out_of_memory;
mod pauses;
mod posts;
mod processes;
mod random_moments;
mod replicas;
mod scripts;
mod storage;
mod system_calls;
mod two_pods;
mod updates;
mod wait;
mod walkthrough;
