//! Each fault moves its own metric and no other trigger's, and the flags stop it.

use super::*;

const RATE: f64 = 20.0;

fn traffic(replicas: usize) -> (Traffic, Faults) {
    let faults = Faults::new(replicas);
    (Traffic::new(replicas, faults.clone(), 0.8, 1), faults)
}

fn pass(traffic: &mut Traffic, flags: Flags, seconds: u32) {
    for _ in 0..seconds * 10 {
        traffic.tick(flags, RATE, 0.1);
    }
}

/// A series' value as a scraper reads it.
fn exposed(metrics: &Metrics, series: &str) -> f64 {
    let body = metrics.expose().unwrap();
    let line = body.lines().find(|line| line.starts_with(series)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// The numbers the triggers live on, summed over the replicas.
#[derive(Debug, Default, PartialEq)]
struct Sum {
    learning: [u64; 2],
    baseline: [u64; 2],
    operations: [u64; 2],
    accuracy: [u64; 2],
    seconds: f64,
    memory: f64,
}

fn sum(traffic: &Traffic) -> Sum {
    let mut sum = Sum::default();
    for replica in &traffic.replicas {
        let metrics = &replica.metrics;
        for (version, into) in [(Version::Learning, &mut sum.learning), (Version::Baseline, &mut sum.baseline)] {
            let by = ByVersion { version };
            into[0] += metrics.requests.get_or_create(&by).get();
            into[1] += metrics.errors.get_or_create(&by).get();
        }
        for &operation_type in Operation::ALL {
            let by = ByOperation { operation_type };
            sum.operations[0] += metrics.operations.get_or_create(&by).get();
            sum.operations[1] += metrics.operation_failures.get_or_create(&by).get();
        }
        let by = ByVersion { version: Version::Learning };
        sum.accuracy[0] += metrics.accuracy_samples.get_or_create(&by).get();
        sum.accuracy[1] += metrics.accuracy_correct.get_or_create(&by).get();
        sum.seconds += exposed(metrics, "learning_response_time_seconds_sum{version=\"learning\"}");
        sum.memory += metrics.memory.get();
    }
    sum
}

fn ratio([all, some]: [u64; 2]) -> f64 {
    some as f64 / all as f64
}

#[test]
fn a_healthy_minute_meets_the_targets() {
    let (mut traffic, _) = traffic(3);
    pass(&mut traffic, Flags::default(), 60);
    let sum = sum(&traffic);
    assert_eq!(sum.learning[0] + sum.baseline[0], 1200);
    assert_eq!(sum.learning[0], 960);
    assert!(ratio(sum.learning) < 0.005, "{sum:?}");
    assert_eq!(sum.baseline[1], 0);
    assert!(ratio(sum.operations) < 0.02, "{sum:?}");
    assert!((ratio(sum.accuracy) - 0.826).abs() < 0.01, "{sum:?}");
}

#[test]
fn the_same_seed_gives_the_same_exposition() {
    let (mut one, _) = traffic(2);
    let (mut two, _) = traffic(2);
    pass(&mut one, Flags::default(), 10);
    pass(&mut two, Flags::default(), 10);
    assert_eq!(sum(&one), sum(&two));
}

#[test]
fn each_fault_moves_its_own_metric_and_leaves_the_others() {
    let (mut healthy, _) = traffic(1);
    pass(&mut healthy, Flags::default(), 60);
    let healthy = sum(&healthy);
    for fault in Fault::ALL {
        let (mut broken, faults) = traffic(1);
        let level = match fault {
            Fault::Latency => 3.0,
            Fault::MemoryLeak => 1e7,
            Fault::Down => 1.0,
            _ => 0.3,
        };
        faults.set(fault, level).unwrap();
        pass(&mut broken, Flags::default(), 60);
        let broken = sum(&broken);
        let moved = [
            (ratio(broken.learning) - 0.3).abs() < 0.01,
            broken.seconds > 2.9 * healthy.seconds,
            broken.memory > healthy.memory + 5.5e8,
            (ratio(broken.accuracy) - 0.49).abs() < 0.01,
            (ratio(broken.operations) - 0.3).abs() < 0.01,
            broken.learning[0] == 0,
            ratio(broken.baseline) > 0.29,
        ];
        let expected = Fault::ALL.map(|other| other == fault);
        assert_eq!(moved, expected, "{fault:?}: {broken:?}");
    }
}

#[test]
fn switching_learning_off_stops_every_fault_of_the_learning_path() {
    let (mut traffic, faults) = traffic(3);
    for (fault, level) in [
        (Fault::Errors, 0.5),
        (Fault::Latency, 4.0),
        (Fault::MemoryLeak, 1e8),
        (Fault::Accuracy, 0.2),
        (Fault::OperationFailures, 0.5),
        (Fault::Down, 2.0),
    ] {
        faults.set(fault, level).unwrap();
    }
    pass(&mut traffic, Flags::default(), 10);
    assert!(!traffic.is_up(1, Flags::default()) && !traffic.is_up(2, Flags::default()));
    let before = sum(&traffic);

    let off = Flags { learning: false, ..Flags::default() };
    pass(&mut traffic, off, 10);
    let after = sum(&traffic);
    assert!((0..3).all(|replica| traffic.is_up(replica, off)));
    assert_eq!(after.learning, before.learning);
    assert_eq!(after.operations, before.operations);
    assert_eq!(after.accuracy, before.accuracy);
    assert!((after.memory - before.memory).abs() < 3.0 * GARBAGE_BYTES);
    assert_eq!(after.baseline[0], before.baseline[0] + 200);
    assert_eq!(after.baseline[1], 0);
}

#[test]
fn disabling_the_features_stops_the_operations_and_keeps_learning_answers() {
    let (mut traffic, faults) = traffic(1);
    faults.set(Fault::OperationFailures, 0.5).unwrap();
    pass(&mut traffic, Flags::default(), 10);
    let before = sum(&traffic);
    let disabled = Flags { real_time_learning: false, voice_feedback: false, ..Flags::default() };
    pass(&mut traffic, disabled, 10);
    let after = sum(&traffic);
    assert_eq!(after.operations, before.operations);
    assert_eq!(after.learning[0], before.learning[0] + 160);
}

#[test]
fn the_weight_moves_requests_to_the_baseline() {
    let (mut traffic, _) = traffic(1);
    let quarter = Flags { learning_weight: 25, ..Flags::default() };
    pass(&mut traffic, quarter, 60);
    let sum = sum(&traffic);
    assert_eq!(sum.learning[0], 240);
    assert_eq!(sum.baseline[0], 960);
}

#[test]
fn a_cleared_leak_is_a_restart() {
    let (mut traffic, faults) = traffic(1);
    faults.set(Fault::MemoryLeak, 1e8).unwrap();
    pass(&mut traffic, Flags::default(), 10);
    assert!(sum(&traffic).memory > 1.1e9);
    faults.clear(Fault::MemoryLeak);
    pass(&mut traffic, Flags::default(), 1);
    assert!(sum(&traffic).memory <= MEMORY_BYTES + GARBAGE_BYTES);
}

#[test]
fn with_every_replica_down_nothing_is_served() {
    let (mut traffic, faults) = traffic(2);
    faults.set(Fault::Down, 2.0).unwrap();
    pass(&mut traffic, Flags::default(), 5);
    let sum = sum(&traffic);
    assert_eq!(sum.learning[0] + sum.baseline[0], 0);
}
