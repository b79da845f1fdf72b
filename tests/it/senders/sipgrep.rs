//! sipgrep reading a capture and sending what it finds.

use std::process::Command;

use super::program::Program;
use super::{Rig, sip_call, sip_call_messages};

#[test]
#[ignore = "needs sipgrep; tests/run runs it"]
fn sipgrep_sends_hep3() {
    let rig = Rig::start();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sipgrep");
    command.args(["-C", "-P", "15000-15100", "-I"]).arg(sip_call());
    command.arg("-H").arg(format!("udp:{}", rig.tap.udp));
    Program::start(&mut command, folder.path()).finish();
    let arrived = rig.finish(12);
    for (packet, message) in arrived.packets.iter().zip(sip_call_messages()) {
        assert_eq!(packet.payload(), message);
        assert!([15_060, 15_061].contains(&packet.head().source_port));
        // Its id is 101, in the upper half of the field: see `agent_id` of a listener.
        assert_eq!(packet.head().agent_id, 101 << 16);
    }
}
