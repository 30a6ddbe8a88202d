//! What a rollout would do: the real rules on made or recorded traffic, under simulated time. (pure)
//!
//! ```text
//! scenario.rs  words such as `errors=5%,after=25%` → what is wrong with which arm, and when
//! traffic.rs   how many requests come, how many fail, how long they take; made, or as in an access log
//! recording.rs lines of an access log → traffic
//! world.rs     what is true at a moment: rates, latencies, endpoints
//! run.rs       one rollout: traffic → [`crate::rollout::Judge`] → [`crate::rollout::Rollout::decide`]
//! story.rs     what happened in it; many of them summed up
//! promise.rs   promises that cannot be proven with so little traffic
//! ```
//!
//! Time and luck are handed in: the same seed tells the same story. Failures are judged one by one, as in production.
//! Between failures successes are counted in bulk and latencies drawn as histograms, which is the same to the judge. Looks
//! are 100 ms apart while something is new (a stage, a change, a hold) and grow to 5 % of the time since; [`Pace::Every`]
//! keeps to 100 ms.
//!
//! What is left out: requests take no time in flight, endpoints are alike, sticky clients are alike, and operators say
//! yes at once. A story ends where a person is needed.

mod dice;
mod promise;
mod recording;
mod run;
mod scenario;
mod story;
mod traffic;
mod world;

pub use promise::{Needs, Shortfall, shortfalls};
pub use recording::{Recorder, Recording};
pub use run::{Pace, Setup, run};
pub use scenario::{Begins, Scenario, rps};
pub use story::{End, Ended, Quantiles, Step, Story, Summary};
pub use traffic::Traffic;
