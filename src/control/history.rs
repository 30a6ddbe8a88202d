//! The generations that can be named, newest last, with the text each was made from.

use std::collections::VecDeque;
use std::sync::Arc;

use super::overlay::Weights;
use super::overlay::weights_of;
use crate::journal::Record;
use crate::routing::{Generation, ServiceIdx};
use std::collections::BTreeMap;

/// In memory; the journal keeps more.
pub const KEPT: usize = 50;

#[derive(Debug, Default)]
pub(crate) struct History {
    records: VecDeque<Arc<Record>>,
}

impl History {
    pub fn of(records: Vec<Record>) -> History {
        let mut history = History::default();
        for record in records {
            history.push(Arc::new(record));
        }
        history
    }

    pub fn push(&mut self, record: Arc<Record>) {
        if self.records.len() == KEPT {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    pub fn newest_first(&self) -> Vec<Arc<Record>> {
        self.records.iter().rev().cloned().collect()
    }
}

/// The splits of a generation by service and version.
pub(crate) fn splits_of(generation: &Generation) -> BTreeMap<String, Weights> {
    let services = generation.table.services.iter().enumerate();
    services
        .map(|(at, service)| {
            let split = generation.split(ServiceIdx(at as u16));
            (service.name.to_string(), weights_of(&service.versions, split.shares()))
        })
        .collect()
}
