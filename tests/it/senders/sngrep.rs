//! sngrep reading a capture and sending what it finds.

use std::process::Command;

use hepgate::wire::Version;

use super::program::Program;
use super::{Rig, sip_call, sip_call_messages};

fn plays(version: u8) {
    let rig = Rig::start();
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("sngreprc");
    std::fs::write(&settings, format!("set eep.send.version {version}\nset eep.send.id 2001\n")).unwrap();
    let mut command = Command::new("sngrep");
    command.arg("-f").arg(&settings).args(["-F", "-N", "-q", "-I"]).arg(sip_call());
    command.arg("-H").arg(format!("udp:{}", rig.tap.udp));
    Program::start(&mut command, folder.path()).finish();
    let arrived = rig.finish(12);
    let expected = if version == 2 { Version::Hep2 } else { Version::Hep3 };
    for (packet, message) in arrived.packets.iter().zip(sip_call_messages()) {
        assert_eq!(packet.head().version, expected);
        assert_eq!(packet.payload(), message);
        let source = packet.head().source.unwrap();
        assert!(source.is_loopback(), "{source}");
        assert!([15_060, 15_061].contains(&packet.head().source_port));
        assert_eq!(packet.head().captured_at.unwrap().seconds / 100, 17_954_182, "23 November 2026, 07:17");
    }
}

#[test]
#[ignore = "needs sngrep; tests/run runs it"]
fn sngrep_sends_hep3() {
    plays(3);
}

#[test]
#[ignore = "needs sngrep; tests/run runs it"]
fn sngrep_sends_hep2() {
    plays(2);
}
