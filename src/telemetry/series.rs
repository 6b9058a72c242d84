//! Series in arrays: each is made when the recorder is, and found by an index afterwards.

use super::labels::Word;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Metric, Registry, Unit};
use std::marker::PhantomData;

/// A metric for each value of a label.
#[derive(Debug)]
pub(super) struct Per<L, M> {
    metrics: Box<[M]>,
    label: PhantomData<fn(L)>,
}

impl<L: Word, M> Per<L, M> {
    pub(super) fn at(&self, label: L) -> &M {
        &self.metrics[label.index()]
    }
}

/// A metric for each pair of values of two labels.
#[derive(Debug)]
pub(super) struct PerPair<A, B, M> {
    metrics: Box<[M]>,
    labels: PhantomData<fn(A, B)>,
}

impl<A: Word, B: Word, M> PerPair<A, B, M> {
    pub(super) fn at(&self, first: A, second: B) -> &M {
        &self.metrics[first.index() * B::ALL.len() + second.index()]
    }
}

/// Registers metrics and keeps what is behind them.
pub(super) struct Build {
    pub(super) registry: Registry,
}

impl Build {
    pub(super) fn one<M: Metric + Clone + Default>(&mut self, name: &str, help: &str, unit: Option<Unit>) -> M {
        let metric = M::default();
        self.register(name, help, unit, metric.clone());
        metric
    }

    pub(super) fn per<L, M>(&mut self, name: &str, help: &str, label: &'static str, unit: Option<Unit>) -> Per<L, M>
    where
        L: Word,
        M: Clone + Default,
        Family<[(&'static str, &'static str); 1], M>: Metric + Default,
    {
        let family = Family::<[(&'static str, &'static str); 1], M>::default();
        let metrics = L::ALL.iter().map(|value| family.get_or_create_owned(&[(label, value.word())])).collect();
        self.register(name, help, unit, family);
        Per { metrics, label: PhantomData }
    }

    pub(super) fn per_pair<A, B, M>(
        &mut self,
        name: &str,
        help: &str,
        [first, second]: [&'static str; 2],
        unit: Option<Unit>,
    ) -> PerPair<A, B, M>
    where
        A: Word,
        B: Word,
        M: Clone + Default,
        Family<[(&'static str, &'static str); 2], M>: Metric + Default,
    {
        let family = Family::<[(&'static str, &'static str); 2], M>::default();
        let pairs = A::ALL.iter().flat_map(|a| B::ALL.iter().map(move |b| [(first, a.word()), (second, b.word())]));
        let metrics = pairs.map(|labels| family.get_or_create_owned(&labels)).collect();
        self.register(name, help, unit, family);
        PerPair { metrics, labels: PhantomData }
    }

    fn register(&mut self, name: &str, help: &str, unit: Option<Unit>, metric: impl Metric) {
        match unit {
            Some(unit) => self.registry.register_with_unit(name, help, unit, metric),
            None => self.registry.register(name, help, metric),
        }
    }
}
