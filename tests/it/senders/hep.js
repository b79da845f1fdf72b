// hep-js at one end. "send PORT" reads {payload, info} as lines of JSON and sends each as a datagram of HEP3;
// "receive PORT" says "ready" and then each datagram that comes, as a line of JSON.
const dgram = require("dgram");
const readline = require("readline");
const hep = require("hep-js");

const [what, port] = process.argv.slice(2);
const socket = dgram.createSocket("udp4");

if (what === "send") {
  const lines = readline.createInterface({ input: process.stdin });
  const sends = [];
  lines.on("line", (line) => {
    const { payload, info } = JSON.parse(line);
    const octets = hep.encapsulate(payload, info);
    sends.push(new Promise((done) => socket.send(octets, port, "127.0.0.1", done)));
  });
  lines.on("close", () => Promise.all(sends).then(() => socket.close()));
} else {
  socket.on("message", (octets) => console.log(JSON.stringify(hep.decapsulate(octets))));
  socket.bind(port, "127.0.0.1", () => console.log("ready"));
}
