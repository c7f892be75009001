//! Sensors: services that nobody has a reason to use. Who touches one is refused by every service
//! of this fived for the row's `deny_time`. Sessions and services that run are not ended.

use super::arrival::{Arrival, StartError};
use super::lines;
use super::logins::penalties::Penalties;
use crate::wire::orders::Why;
use std::time::Duration;

/// For ever: sources are barred until fived ends.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The sources that have touched one.
#[derive(Debug, Default)]
pub struct Sensors(Penalties);

impl Sensors {
    /// How often a source has been barred since the start.
    pub fn given(&self) -> u64 {
        self.0.given
    }

    /// Why this arrival is refused: its service is a sensor, or its source has touched one.
    pub fn refuse(&mut self, a: &Arrival, now: Duration) -> Option<StartError> {
        let (peer, table) = (a.who.facts.peer, &a.config.table);
        let service = table.service(a.service)?;
        if table.is_sensor_for(a.service, &a.who.facts) {
            let time = service.attributes.deny_time;
            let time = time.map_or(FOREVER, |seconds| Duration::from_secs(seconds.into()));
            if !time.is_zero() {
                let lasts = self.0.bar(peer, time, now);
                lines::touched(peer, (time, lasts), now, a.who.number);
            }
        } else {
            self.0.left(peer, now)?;
        }
        Some(StartError { reply: Some(Why::NotAvailable), reason: "sensor", text: None })
    }
}
