use std::process::Command;

use serde_json::Value;

use crate::support::gateway::HEPGATE;

#[test]
fn every_limit_of_this_build_holds() {
    let output = Command::new(HEPGATE).args(["doctor", "--json"]).output().unwrap();
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(findings.len() >= 37, "{}", findings.len());
    for finding in &findings {
        assert_eq!(finding["held"], true, "{finding}");
        assert!(!finding["figure"].as_str().unwrap().is_empty(), "{finding}");
    }
    assert!(output.status.success());
    let output = Command::new(HEPGATE).arg("doctor").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with(&format!("all {} held\n", findings.len())), "{text}");
}
