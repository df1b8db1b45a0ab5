//! The double answers every scenario as a real kube-apiserver does.

use apiserver_double::{Double, conformance};

#[tokio::test(start_paused = true)]
async fn the_double_answers_like_kube_apiserver() {
    let double = Double::new();
    let report = conformance::check(double.bystander(), "conformance").await;
    assert!(report.failed.is_empty(), "{report}");
    assert_eq!(report.passed.len(), conformance::scenarios().len());
}
