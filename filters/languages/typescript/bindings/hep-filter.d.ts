// What a filter exports and may import, as wit/ of the gateway says it. Made by its test `typescript`: do not edit it.
//
// A list<u8> is a Uint8Array; where you give one, an array of numbers will do. What is none is null. What the WIT says
// of an error is the `payload` of the Error that is thrown.
//
// A u32 of 2^31 and more comes negative, and must be given so: read it as `x >>> 0`, give it as `x | 0`. Numbers of 64
// bits are signed, and rounded above 2^53: halves of IPv6 addresses are not exact. There is no bigint.

/**
 * What time it is.
 *
 * Both clocks stand still during a call: they say when it began, rounded down to the operator's `clock_grain`. So a
 * filter cannot measure with them how long something takes, and a call that is repeated sees the same time again.
 */
declare module "hep:filter/clock" {
  /** Microseconds since the epoch. In a replay it is the time of the packets. */
  export function wall(): number;

  /** Microseconds since some moment before this instance was made. Never goes back. */
  export function monotonic(): number;
}

/** What the operator wrote into the filter's `config` table. It does not change while an instance lives. */
declare module "hep:filter/config" {
  /** The value of a key. */
  export function get(key: string): string | null;

  /** All keys and values, sorted by key: a filter can refuse a key that it does not know. */
  export function all(): [string, string][];
}

/** Being called before the end. */
declare module "hep:filter/last-call" {
  /** What `export const lastCall` is. */
  export interface LastCall {
    /**
     * Called once, as the last call of an instance that ends in order: the gateway stops, another version takes over,
     * or the instance is replaced because it has grown. It may send, log, count and remember. An instance that failed
     * gets no last call.
     */
    onStop(): void;
  }
}

/** The gateway's log. */
declare module "hep:filter/log" {
  export type Level =
    | "error"
    | "warn"
    | "info"
    | "debug";

  /**
   * Writes a line, with the filter's name beside it. Lines are kept even if the call fails. Control characters are
   * replaced, a long line is cut, and lines above the operator's rate are counted instead of written.
   */
  export function log(level: Level, line: string): void;
}

/**
 * Metrics of a filter's own, on the gateway's /metrics page as `hepgate_guest_NAME`, with the labels `tenant` and
 * `filter` and those of the metric.
 *
 * All instances of a filter of a tenant share them. What a call counts takes effect when it returns well; a call that
 * fails has counted nothing. A series is there from the moment at which its label values were first named.
 */
declare module "hep:filter/metrics" {
  /** Why a metric cannot be declared or counted. */
  export type MetricError =
    /** Metrics are declared in `init`. */
    | { tag: "not-now" }
    /**
     * Names are 1 to 64 of a-z, A-Z, 0-9 and _, and begin with a letter; labels are not called tenant, filter or le.
     */
    | { tag: "bad-name"; val: string }
    /** It was declared before with another kind, other labels or other bounds. */
    | { tag: "conflict" }
    /**
     * There are as many metrics, or as many series (sets of label values) of all metrics together, as the operator
     * allows.
     */
    | { tag: "quota"; val: number }
    /** There must be so many label values. */
    | { tag: "wrong-labels"; val: number }
    /** A label value may have so many octets. */
    | { tag: "too-long"; val: number }
    /** Bounds are 1 to 32 finite numbers, each greater than the one before; values are no NaN. */
    | { tag: "bad-number" }
    | { tag: "other"; val: string };

  /** Counts up. */
  export class Counter {
    private constructor();
    /**
     * Declares it. Metrics of the same name, kind and labels are one.
     * @throws {Error & { payload: MetricError }}
     */
    static declare(name: string, help: string, labels: string[]): Counter;
    /**
     * Adds to the series with these label values.
     * @throws {Error & { payload: MetricError }}
     */
    add(labels: string[], by: number): void;
    /** Drops it; otherwise it lives until it is collected. */
    [Symbol.dispose](): void;
  }

  /** A value that goes up and down. */
  export class Gauge {
    private constructor();
    /**
     * Declares it, as a counter is.
     * @throws {Error & { payload: MetricError }}
     */
    static declare(name: string, help: string, labels: string[]): Gauge;
    /**
     * Sets the series with these label values.
     * @throws {Error & { payload: MetricError }}
     */
    set(labels: string[], value: number): void;
    /** Drops it; otherwise it lives until it is collected. */
    [Symbol.dispose](): void;
  }

  /** How often values lie up to each of some bounds. */
  export class Histogram {
    private constructor();
    /**
     * Declares it, as a counter is. The last bound, infinity, is added.
     * @throws {Error & { payload: MetricError }}
     */
    static declare(name: string, help: string, labels: string[], bounds: number[]): Histogram;
    /**
     * Counts a value in the series with these label values.
     * @throws {Error & { payload: MetricError }}
     */
    observe(labels: string[], value: number): void;
    /** Drops it; otherwise it lives until it is collected. */
    [Symbol.dispose](): void;
  }
}

/**
 * What a filter remembers beyond a call, and beyond an instance: keys with values.
 *
 * It belongs to one filter of one tenant; all instances of that share it, and nobody else sees it. It lives as long as
 * the gateway. What a call changes takes effect when it returns well; a call that fails has changed nothing.
 */
declare module "hep:filter/state" {
  /** Why something cannot be remembered. Everything is as it was before. */
  export type StateError =
    /** There are as many keys as the operator allows. */
    | { tag: "too-many-keys"; val: number }
    /** There are as many octets of keys and values as the operator allows. Each key counts 64 more. */
    | { tag: "too-many-octets"; val: number }
    /** A key has 1 to 256 octets. */
    | { tag: "bad-key" }
    /** The value is not one that `add` has made. */
    | { tag: "not-a-number" }
    | { tag: "other"; val: string };

  /** The value of a key, if it is there and its time is not over. Sees what this call has changed. */
  export function get(key: string): Uint8Array | null;

  /**
   * Sets a key. It is forgotten after so many milliseconds; without that, never.
   * @throws {Error & { payload: StateError }}
   */
  export function set(key: string, value: Uint8Array | number[], ttlMilliseconds: number | null): void;

  /** Forgets a key. Whether it was there. */
  export function remove(key: string): boolean;

  /**
   * Adds to a number and gives the sum, as far as this call can see it: what other instances add at the same time is
   * added, too. A key that is not there counts as 0, and is forgotten after so many milliseconds; one that is there
   * keeps its time. The value is 8 octets in network order.
   * @throws {Error & { payload: StateError }}
   */
  export function add(key: string, by: number, ttlMilliseconds: number | null): number;
}

/** Being called without packets. */
declare module "hep:filter/ticker" {
  /** What `export const ticker` is. */
  export interface Ticker {
    /**
     * Called about as often as the operator's `tick` for this filter says, as long as there is a running instance: the
     * first packets make one. Each worker has an instance of its own and ticks on its own.
     */
    onTick(): void;
  }
}

/** Words that the other interfaces share. */
declare module "hep:filter/types" {
  /** An IP address, or none where a packet has none. */
  export type IpAddress =
    | { tag: "none" }
    /** The four octets as one number: 127.0.0.1 is 0x7f000001. */
    | { tag: "ipv4"; val: number }
    /** The sixteen octets as two numbers: ::1 is (0, 1). */
    | { tag: "ipv6"; val: [number, number] };

  /** An address with a port. */
  export interface Endpoint {
    address: IpAddress;
    port: number;
  }

  /** Which chunk: the vendor (0 for the specification's own) and the type in the vendor's numbering. */
  export interface ChunkId {
    vendor: number;
    kind: number;
  }

  /** One chunk of a packet. */
  export interface Chunk {
    id: ChunkId;
    body: Uint8Array;
  }

  /** How the body of a chunk is read. Numbers are in network order. */
  export type ChunkForm =
    | "uint8"
    | "uint16"
    | "uint32"
    | "inet4-addr"
    | "inet6-addr"
    | "utf8-string"
    | "octet-string";

  /** The body of a chunk, read or to be written in one of these forms. */
  export type ChunkValue =
    | { tag: "uint8"; val: number }
    | { tag: "uint16"; val: number }
    | { tag: "uint32"; val: number }
    /** As in `ip-address`. */
    | { tag: "inet4-addr"; val: number }
    /** As in `ip-address`. */
    | { tag: "inet6-addr"; val: [number, number] }
    | { tag: "utf8-string"; val: string }
    | { tag: "octet-string"; val: Uint8Array };

  /** What becomes of a packet after this filter. */
  export type Verdict =
    /** The next filter sees it, and after the last one it goes to the tenant's collectors. */
    | "pass"
    /**
     * The other filters still see it, but it does not go to the tenant's collectors. What any filter of the chain
     * skips stays skipped. It is what a filter answers that has relayed the packet itself.
     */
    | "skip"
    /** Nobody sees it any more. */
    | "drop";

  /** Why a packet could not be made or changed. It is as it was before. */
  export type EditError =
    /** There is no packet at that index of the batch. */
    | { tag: "no-such-packet" }
    /** The range is not inside the payload. The number is how many octets the payload has. */
    | { tag: "out-of-range"; val: number }
    /** There is no payload, or it is compressed. */
    | { tag: "no-payload" }
    /** The packet would have so many octets. It may have 65535, as HEP1 or HEP2 65507. */
    | { tag: "too-long"; val: number }
    /** This chunk's body must have so many octets. */
    | { tag: "wrong-width"; val: number }
    /** The addresses are of different families, or none. */
    | { tag: "bad-addresses" }
    /** The version cannot hold it, or there is no such version. The text says what it is. */
    | { tag: "not-in-version"; val: string }
    | { tag: "other"; val: string };
}

/** The packets that a call is about. */
declare module "hep:filter/packets" {
  import type { Chunk, ChunkForm, ChunkId, ChunkValue, EditError, Endpoint, IpAddress } from "hep:filter/types";

  /** What a packet says in numbers. Where it says nothing, 0 or `none`. */
  export interface Scalars {
    /** 1, 2 or 3. */
    version: number;
    /** IP protocol of the captured packet as it came: 6 TCP, 17 UDP, 132 SCTP, 22 for TLS, 50 for WebSocket. */
    ipProtocol: number;
    /** What the payload is: 1 SIP, 5 RTCP as JSON, 100 log. An open set. HEP1 and HEP2 are SIP. */
    payloadType: number;
    /**
     * A set of bits; ignore those that you do not know.
     * 1: the payload is compressed and cannot be inflated: it reads as it came. (One that can be inflated reads like
     * any other, and stays compressed in a packet that nobody changes.)
     * 2: a careless receiver could read another payload than this one: the packet has a second one, or a chunk of
     * another vendor with the payload's number. A filter that hides things should drop such a packet.
     * 4: an earlier filter of the chain has skipped the packet.
     * 8: the packet has no payload (as opposed to an empty one).
     */
    marks: number;
    sourcePort: number;
    destinationPort: number;
    /** Who captured it. */
    agentId: number;
    /** Octets of the payload. */
    payloadLength: number;
    source: IpAddress;
    destination: IpAddress;
    /** When it was captured, in microseconds since the epoch; 0 if the packet does not say. */
    capturedAt: number;
  }

  /** Who sent us a packet (`$hep_net` in OpenSIPS). */
  export interface Sender {
    /** "udp", "tcp" or "tls". */
    transport: string;
    peer: Endpoint;
    /** The address at which we received it. */
    local: Endpoint;
    /** The listener's name in the configuration. */
    listener: string;
  }

  /** A run of octets in a payload. */
  export interface Span {
    offset: number;
    length: number;
  }

  /**
   * The packets of one call of `on-batch`. It lives as long as that call; a handle kept longer is dead, and to use
   * it is a trap. Packets are named by their index, from 0.
   *
   * What this call has edited reads back edited, and the filters after this one see it so. If the call fails,
   * all its edits are undone.
   */
  export class Batch {
    private constructor();
    /** How many packets there are: at least one. */
    len(): number;
    /** The scalars of all packets, in order. One call for all of them is what makes a filter fast. */
    scalars(): Scalars[];
    /**
     * The scalars of all packets as plain numbers, which cross the boundary in one piece: a third of the cost of
     * `scalars`. Sixteen numbers for each packet, in order: 0: version, and from bit 8 on ip-protocol, from bit 16
     * payload-type, from bit 24 marks. 1: source-port, and from bit 16 on destination-port. 2: agent-id. 3:
     * payload-length. 4 and 5: the lower and the upper half of captured-at. 6: what the source is, and from bit 8 on
     * what the destination is: 0 no address, 4 IPv4, 6 IPv6. 7: 0 for now; ignore it. 8 to 11: the source; 12 to 15:
     * the destination. An IPv4 address is the first of its four numbers, of an IPv6 address the first is the most
     * significant.
     */
    packedScalars(): number[];
    /**
     * Up to `max` octets of one payload from `offset` on; empty if there are none.
     * A trap if there is no packet at that index.
     */
    payload(index: number, offset: number, max: number): Uint8Array;
    /**
     * The payloads of all packets in one list, one after the other, of each the first `max` octets. A packet's share
     * is the smaller of `max` and its `payload-length`.
     */
    payloads(max: number): Uint8Array;
    /**
     * The body of a chunk, if there is one; the last one if there are several. HEP1 and HEP2 have no chunks.
     * A trap if there is no packet at that index.
     */
    chunk(index: number, id: ChunkId): Uint8Array | null;
    /**
     * The body of a chunk in that form (`hep_get` in OpenSIPS), if there is one; the last one if there are several.
     * `wrong-width` if its width is not that of the form, `other` if it is no UTF-8.
     * A trap if there is no packet at that index.
     * @throws {Error & { payload: EditError }}
     */
    chunkValue(index: number, id: ChunkId, form: ChunkForm): ChunkValue | null;
    /** All chunks in order. A trap if there is no packet at that index. */
    chunks(index: number): Chunk[];
    /** The correlation id (chunk 0x11), if there is one. A trap if there is no packet at that index. */
    correlationId(index: number): Uint8Array | null;
    /** The agent's name (chunk 0x13), if there is one. A trap if there is no packet at that index. */
    agentName(index: number): Uint8Array | null;
    /**
     * The method of a SIP request, or, of a response, the method in its CSeq. `none` for what is no SIP, and for SIP
     * that is too broken to tell. A trap if there is no packet at that index.
     */
    sipMethod(index: number): string | null;
    /**
     * The value of a SIP header, without the white space around it; the first one if there are several. The name is
     * matched whatever its case, in its long or its compact form ("Call-ID", "i"). Only the first 16384 octets of a
     * message and the first 256 lines are looked at. A trap if there is no packet at that index.
     */
    sipHeader(index: number, name: string): Uint8Array | null;
    /** Who sent us the packet. A trap if there is no packet at that index. */
    sender(index: number): Sender;
    /**
     * Replaces the payload; it is then not compressed, whatever it was, and the only one.
     * @throws {Error & { payload: EditError }}
     */
    setPayload(index: number, payload: Uint8Array | number[]): void;
    /**
     * Overwrites each of these runs of the payload with one octet. All of them or, if one is out of range, none.
     * @throws {Error & { payload: EditError }}
     */
    mask(index: number, spans: Span[], fill: number): void;
    /**
     * Sets a chunk: the deciding one is replaced where it stands, others of its kind go; if there is none, it is
     * added at the end. Payload and compressed payload (0x0f, 0x10) are one kind, and so are the two source
     * addresses and the two destination addresses. HEP1 and HEP2 become HEP3.
     * `other` for the IP family (0x01) and the time (0x09, 0x0a), which are not set by themselves: `set-flow` and
     * `set-captured-at` set them.
     * @throws {Error & { payload: EditError }}
     */
    setChunk(index: number, id: ChunkId, body: Uint8Array | number[]): void;
    /**
     * Sets a chunk, as `set-chunk` does, to a value (`hep_set` in OpenSIPS).
     * @throws {Error & { payload: EditError }}
     */
    setChunkValue(index: number, id: ChunkId, value: ChunkValue): void;
    /**
     * Adds a chunk at the end, whether or not there is one of that id; `other` as `set-chunk` says.
     * @throws {Error & { payload: EditError }}
     */
    addChunk(index: number, id: ChunkId, body: Uint8Array | number[]): void;
    /**
     * Removes all chunks of that id and says how many there were.
     * @throws {Error & { payload: EditError }}
     */
    removeChunk(index: number, id: ChunkId): number;
    /**
     * Sets addresses and ports of the captured packet, and its IP family with them.
     * @throws {Error & { payload: EditError }}
     */
    setFlow(index: number, source: Endpoint, destination: Endpoint): void;
    /**
     * Sets the captured packet's IP protocol.
     * @throws {Error & { payload: EditError }}
     */
    setIpProtocol(index: number, ipProtocol: number): void;
    /**
     * Says what the payload is. HEP1 and HEP2 become HEP3 if it is not SIP.
     * @throws {Error & { payload: EditError }}
     */
    setPayloadType(index: number, payloadType: number): void;
    /**
     * Sets who captured it. HEP1, and HEP2 if it is above 65535, become HEP3.
     * @throws {Error & { payload: EditError }}
     */
    setAgentId(index: number, agentId: number): void;
    /**
     * Sets when it was captured, in microseconds since the epoch. HEP1 becomes HEP3.
     * @throws {Error & { payload: EditError }}
     */
    setCapturedAt(index: number, capturedAt: number): void;
    /**
     * Sets the correlation id (chunk 0x11). HEP1 and HEP2 become HEP3.
     * @throws {Error & { payload: EditError }}
     */
    setCorrelationId(index: number, correlationId: Uint8Array | number[]): void;
  }
}

/** What a filter is called for. */
declare module "hep:filter/callbacks" {
  import type { Batch } from "hep:filter/packets";
  import type { Verdict } from "hep:filter/types";

  /** What `export const callbacks` is. */
  export interface Callbacks {
    /**
     * Called once, before anything else. The text of an error is shown to the operator; at start-up it keeps the
     * gateway from starting.
     * @throws {Error} with a text for the operator
     */
    init(): void;
    /**
     * Called with packets, in the order in which they came. One verdict for each, in the same order; an empty list
     * passes them all. Any other length is an error of the call.
     *
     * How many come at once is up to the traffic: do not build on it.
     */
    onBatch(packets: Batch): Verdict[];
  }
}

/** Packets of your own (`pack_hep` in OpenSIPS). */
declare module "hep:filter/packing" {
  import type { ChunkId, ChunkValue, EditError, Endpoint } from "hep:filter/types";

  /** A packet that you make. It lives until you drop it and may be sent several times. */
  export class Packet {
    private constructor();
    /**
     * A packet with what `pack_hep` takes. Its time of capture is the host's clock now, and its agent id is the
     * gateway's own (`hep_capture_id`), until you set them.
     * `bad-addresses` unless both addresses are of one family.
     * @throws {Error & { payload: EditError }}
     */
    static pack(
      source: Endpoint,
      destination: Endpoint,
      ipProtocol: number,
      payloadType: number,
      payload: Uint8Array | number[],
    ): Packet;
    /**
     * A packet whose payload is made of parts, as OpenSIPS' tracer makes it; otherwise as `pack` says.
     * @throws {Error & { payload: EditError }}
     */
    static packParts(source: Endpoint, destination: Endpoint, ipProtocol: number, payloadType: number): Packet;
    /**
     * Adds a part to the payload of a packet that `pack-parts` made. With the operator's `homer5_on` the values stand
     * in a row with `homer5_delim` between them; without, they are the members of a JSON object, in which the last of
     * one name counts. `other` if the packet has a whole payload, from `pack`.
     * @throws {Error & { payload: EditError }}
     */
    addPayloadPart(name: string, value: string): void;
    /**
     * Adds a correlation, as OpenSIPS' tracer does; the last of one name counts. With the operator's `homer5_on` only
     * that leaves whose name begins with "sip", as the correlation id (chunk 0x11); without, all of them leave, as a
     * JSON object (chunk 0x65).
     * @throws {Error & { payload: EditError }}
     */
    addCorrelation(name: string, id: string): void;
    /** When it was captured, in microseconds since the epoch. */
    setCapturedAt(capturedAt: number): void;
    /** Who captured it. */
    setAgentId(agentId: number): void;
    /**
     * The correlation id (chunk 0x11).
     * @throws {Error & { payload: EditError }}
     */
    setCorrelationId(correlationId: Uint8Array | number[]): void;
    /**
     * Further correlation, as OpenSIPS' tracer sends it (chunk 0x65): a JSON object as text.
     * @throws {Error & { payload: EditError }}
     */
    setExtraCorrelation(json: string): void;
    /**
     * Adds a chunk. Chunks stand before the payload in the order in which they were added. What `pack` takes and what
     * has a function of its own (generic 0x01 to 0x0c, 0x0f, 0x10) cannot be added.
     * @throws {Error & { payload: EditError }}
     */
    addChunk(id: ChunkId, body: Uint8Array | number[]): void;
    /**
     * The same, with a value for its body.
     * @throws {Error & { payload: EditError }}
     */
    addChunkValue(id: ChunkId, value: ChunkValue): void;
    /**
     * The packet's octets in a version: 1, 2 or 3.
     * @throws {Error & { payload: EditError }}
     */
    encode(version: number): Uint8Array;
    /** Drops it; otherwise it lives until it is collected. */
    [Symbol.dispose](): void;
  }
}

/**
 * Sending packets to collectors.
 *
 * What is sent leaves when the call has returned well; a call that fails has sent nothing. `init` cannot send.
 */
declare module "hep:filter/sending" {
  import type { Batch } from "hep:filter/packets";
  import type { Packet } from "hep:filter/packing";

  /** Why a collector cannot be opened. */
  export type OpenError =
    /** No collector of that name is granted to this filter. Whether there is one at all, a filter does not learn. */
    | { tag: "not-granted" }
    | { tag: "other"; val: string };

  /** Why a packet cannot be sent. */
  export type SendError =
    /** This call has sent as many packets, or as many octets, as it may. */
    | { tag: "quota" }
    /** The packet would have so many octets. It may have 65535. */
    | { tag: "too-long"; val: number }
    /** The collector is not keeping up: as many packets wait for it as may. */
    | { tag: "postponed-full" }
    /** The packet cannot be made. The text says why. */
    | { tag: "bad-packet"; val: string }
    /** There is no packet at that index of the batch. */
    | { tag: "no-such-packet" }
    | { tag: "other"; val: string };

  /** A collector that the operator granted to this filter. It may be kept as long as the filter runs. */
  export class Collector {
    private constructor();
    /**
     * Opens a collector by its name in the configuration. May be called at any time; do it in `init`, so that a
     * wrong name shows at once.
     * @throws {Error & { payload: OpenError }}
     */
    static open(name: string): Collector;
    /**
     * Sends a packet of your own.
     * @throws {Error & { payload: SendError }}
     */
    send(packet: Packet): void;
    /**
     * Says that two ids of different types, such as the Call-IDs of two legs, belong together (`correlate` in
     * OpenSIPS): sends a packet without payload, of payload type 0x60, from 127.0.0.1 to 127.0.0.2, whose chunk 0x65 is
     * the JSON object `{"type1":"id1","type2":"id2"}`. If a type is "sip", its id is the correlation id, too (0x11).
     * `bad-packet` if the types are the same or an id is empty.
     * @throws {Error & { payload: SendError }}
     */
    correlate(type1: string, id1: string, type2: string, id2: string): void;
    /**
     * Sends a received packet as it is now, without its octets coming to the filter. The packet goes on through
     * the chain as well, unless you answer `skip` or `drop`.
     * @throws {Error & { payload: SendError }}
     */
    relay(packets: Batch, index: number): void;
    /** Drops it; otherwise it lives until it is collected. */
    [Symbol.dispose](): void;
  }
}

/**
 * Which packets a filter wants to see. The others pass it by without a call, as if it had answered `pass`.
 *
 * It is said in `init`; who says nothing sees all. What is said with different functions must all be true of a packet;
 * of one function the last call counts. The operator may narrow it further, never widen it.
 */
declare module "hep:filter/subscription" {
  import type { IpAddress } from "hep:filter/types";

  /** Why a subscription is not taken. */
  export type SubscribeError =
    /** `init` is over. */
    | { tag: "not-now" }
    /** A list has 1 to 1024 values. */
    | { tag: "bad-length" }
    /** This value is none. The text says which and why. */
    | { tag: "bad-value"; val: string }
    | { tag: "other"; val: string };

  /** The first `prefix` bits of an address: 0 to 32, or to 128 for IPv6. */
  export interface Network {
    address: IpAddress;
    prefix: number;
  }

  /**
   * Only packets whose payload is of one of these types: 1 is SIP.
   * @throws {Error & { payload: SubscribeError }}
   */
  export function payloadTypes(types: Uint8Array | number[]): void;

  /**
   * Only packets of these agents.
   * @throws {Error & { payload: SubscribeError }}
   */
  export function agentIds(ids: number[]): void;

  /**
   * Only SIP with one of these methods, in capital letters: requests, and the responses to them (by CSeq). What is no
   * SIP has no method.
   * @throws {Error & { payload: SubscribeError }}
   */
  export function sipMethods(methods: string[]): void;

  /**
   * Only packets that were captured from or to an address in one of these networks.
   * @throws {Error & { payload: SubscribeError }}
   */
  export function networks(networks: Network[]): void;
}
