from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import config, log, subscription
from wit_world.imports.log import Level
from wit_world.imports.metrics import Counter
from wit_world.imports.packets import Batch
from wit_world.imports.types import ChunkId, Verdict

ACTIONS = {"drop": Verdict.DROP, "skip": Verdict.SKIP, "mark": Verdict.PASS}
AGENT_NAME = ChunkId(vendor=0, kind=0x13)

# What a filter keeps stands out here: each call has a Callbacks of its own. This runs once, when the component is
# built, where there is no gateway to call. Each worker of the gateway then has variables of its own.
action = "drop"
prefixes: list[str] = []
seen: set[str] = set()
found: Counter


class Callbacks(exports.Callbacks):
    def init(self) -> None:
        # The text of an Err is shown to the operator; any other exception is a fault of the filter.
        global action, found
        told = dict(config.all())
        for key in told:
            if key not in ("agents", "action"):
                raise Err(f'config key "{key}" is unknown; known here: agents, action')
        agents = told.get("agents", "friendly-scanner, sipvicious, sipcli, pplsip")
        action = told.get("action", action)
        if action not in ACTIONS:
            raise Err(f'config key "action": "{action}" is not drop, skip or mark')
        prefixes.extend(text.strip() for text in agents.split(",") if text.strip())

        try:
            subscription.payload_types(bytes([1]))
        except Err:
            raise Err("cannot subscribe")
        try:
            found = Counter.declare("found", "SIP of scanning programs", ["agent"])
        except Err:
            raise Err("cannot declare a metric")

    def on_batch(self, packets: Batch) -> list[Verdict]:
        # One call for all packets: calls of the gateway are what costs.
        scalars = packets.scalars()
        return [verdict(packets, i, packet.agent_id) for i, packet in enumerate(scalars)]


def verdict(packets: Batch, i: int, agent_id: int) -> Verdict:
    agent = packets.sip_header(i, "User-Agent")
    if agent is None:
        agent = packets.sip_header(i, "Server")
    prefix = None if agent is None else prefix_of(agent)
    if prefix is not None:
        try:
            found.add([prefix], 1)
        except Err:
            pass  # There are too many agents to count each: the packet matters more.
        if prefix not in seen:
            seen.add(prefix)
            log.log(Level.INFO, f"found {prefix}, agent id {agent_id}")
        if action != "mark":
            return ACTIONS[action]
        try:
            packets.set_chunk(i, AGENT_NAME, b"scanner")
        except Err:
            log.log(Level.WARN, "cannot mark a packet")

    if packets.correlation_id(i) is None:
        call_id = packets.sip_header(i, "Call-ID")
        if call_id:
            try:
                packets.set_correlation_id(i, call_id)
            except Err:
                log.log(Level.WARN, "cannot set a correlation id")
    return Verdict.PASS


def prefix_of(agent: bytes) -> str | None:
    # Headers are octets, which need not be UTF-8: lower() of bytes knows ASCII only, and cannot fail.
    agent = agent.lower()
    for prefix in prefixes:
        if agent.startswith(prefix.encode().lower()):
            return prefix
    return None
