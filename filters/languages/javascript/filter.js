// @ts-check
/// <reference path="./bindings/hep-filter.d.ts" />

import { all } from "hep:filter/config";
import { log } from "hep:filter/log";
import { Counter } from "hep:filter/metrics";
import { payloadTypes } from "hep:filter/subscription";

// What stands outside of functions runs once, when the component is built, and cannot call the gateway. Each worker of
// the gateway then has an instance with variables of its own.
let agents = "friendly-scanner, sipvicious, sipcli, pplsip";
let action = "drop";

/** @type {{ text: string, octets: Uint8Array, seen: boolean }[]} */
let prefixes = [];
/** @type {Counter} */
let found;

/** @type {import("hep:filter/callbacks").Callbacks} */
export const callbacks = {
  // The text of an error that is thrown here is shown to the operator.
  init() {
    const config = new Map(all());
    for (const key of config.keys()) {
      if (key !== "agents" && key !== "action") {
        throw new Error(`config key "${key}" is unknown; known here: agents, action`);
      }
    }
    agents = config.get("agents") ?? agents;
    action = config.get("action") ?? action;
    if (!["drop", "skip", "mark"].includes(action)) {
      throw new Error(`config key "action": "${action}" is not drop, skip or mark`);
    }
    prefixes = agents
      .split(",")
      .map((text) => text.trim())
      .filter((text) => text !== "")
      .map((text) => ({ text, octets: toOctets(text), seen: false }));

    try {
      payloadTypes([1]);
    } catch {
      throw new Error("cannot subscribe");
    }
    try {
      found = Counter.declare("found", "SIP of scanning programs", ["agent"]);
    } catch {
      throw new Error("cannot declare a metric");
    }
  },

  onBatch(batch) {
    // One call for all packets: calls of the gateway are what costs.
    return batch.scalars().map((packet, i) => {
      const agent = batch.sipHeader(i, "User-Agent") ?? batch.sipHeader(i, "Server");
      const prefix = agent && prefixes.find(({ octets }) => beginsWith(agent, octets));
      if (prefix) {
        try {
          found.add([prefix.text], 1);
        } catch {
          // There are too many agents to count each: the packet matters more.
        }
        if (!prefix.seen) {
          prefix.seen = true;
          // What is above 2^31 comes negative, as all u32 here; >>> 0 makes it right.
          log("info", `found ${prefix.text}, agent id ${packet.agentId >>> 0}`);
        }
        if (action === "drop" || action === "skip") {
          return action;
        }
        try {
          batch.setChunk(i, { vendor: 0, kind: 0x13 }, toOctets("scanner"));
        } catch {
          log("warn", "cannot mark a packet");
        }
      }

      if (batch.correlationId(i) === null) {
        const callId = batch.sipHeader(i, "Call-ID");
        if (callId?.length) {
          try {
            batch.setCorrelationId(i, callId);
          } catch {
            log("warn", "cannot set a correlation id");
          }
        }
      }
      return "pass";
    });
  },
};

// Headers are octets, which need not be UTF-8: compared as they are, none of them can break the filter.
/**
 * @param {Uint8Array} octets
 * @param {Uint8Array} prefix
 */
function beginsWith(octets, prefix) {
  return octets.length >= prefix.length && prefix.every((octet, i) => lower(octet) === lower(octets[i]));
}

/** @param {number} octet */
function lower(octet) {
  return octet >= 0x41 && octet <= 0x5a ? octet + 0x20 : octet;
}

// In UTF-8, without TextEncoder, which there is none of here.
/** @param {string} text */
function toOctets(text) {
  return Uint8Array.from(unescape(encodeURIComponent(text)), (char) => char.charCodeAt(0));
}
