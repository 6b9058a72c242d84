//! A histogram of durations that is written with two relaxed additions: `prometheus-client`'s own takes a lock, which
//! every request of every worker would meet at.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The upper bounds: from a hit (tens of microseconds) to upstream's time-out.
const BOUNDS: [Duration; 18] = [
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// Durations by the bucket they fall into. A clone counts into the same place.
#[derive(Clone, Debug, Default)]
pub(super) struct DurationHistogram(Arc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    /// One for each bound, and one for what is above them all.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl DurationHistogram {
    pub(super) fn observe(&self, duration: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < duration);
        self.0.buckets[bucket].fetch_add(1, Relaxed);
        // 584 years fit.
        self.0.nanoseconds.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl TypedMetric for DurationHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for DurationHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = self.0.buckets.each_ref().map(|bucket| bucket.load(Relaxed));
        let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let sum = Duration::from_nanos(self.0.nanoseconds.load(Relaxed)).as_secs_f64();
        // The count is the sum of what was read, so that the +Inf bucket equals it even while others write.
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::{encoding::text::encode, registry::Registry};

    #[test]
    fn durations_fall_into_cumulative_buckets() {
        let histogram = DurationHistogram::default();
        for duration in [Duration::ZERO, Duration::from_micros(50), Duration::from_micros(51), Duration::from_secs(60)]
        {
            histogram.observe(duration);
        }
        let mut registry = Registry::default();
        registry.register("wait", "A wait", histogram);
        let mut text = String::new();
        encode(&mut text, &registry).expect("a String takes every write");
        for line in [
            "wait_bucket{le=\"0.00005\"} 2",
            "wait_bucket{le=\"0.0001\"} 3",
            "wait_bucket{le=\"30.0\"} 3",
            "wait_bucket{le=\"+Inf\"} 4",
            "wait_count 4",
            "wait_sum 60.000101",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn the_bounds_ascend() {
        assert!(BOUNDS.is_sorted_by(|smaller, larger| smaller < larger));
    }
}
