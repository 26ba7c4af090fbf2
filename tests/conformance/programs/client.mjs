// Sends the requests of a case by the clients of Node.js, and prints the answers. Arguments: the URL and the case.
import http from "node:http";

const [url, name] = process.argv.slice(2);
const body = "ab".repeat(50_000);

async function* stream() {
  yield body.slice(0, 30_000);
  yield body.slice(30_000);
}

async function byFetch(path, options = {}) {
  const answer = await fetch(url + path, options);
  console.log(answer.status, answer.statusText, JSON.stringify([...answer.headers]), await answer.text());
}

function byHttp(method, path, headers = {}, parts = []) {
  return new Promise((resolve, reject) => {
    const request = http.request(url + path, { method, headers }, (answer) => {
      let text = "";
      answer.setEncoding("utf8").on("data", (data) => (text += data));
      answer.on("end", () => {
        console.log(answer.statusCode, answer.statusMessage, answer.rawHeaders, answer.rawTrailers, text);
        resolve();
      });
    });
    request.on("error", reject);
    const send = () => {
      for (const part of parts) request.write(part);
      request.end();
    };
    if (headers.Expect) request.on("continue", send);
    else send();
  });
}

const cases = {
  get: () => byHttp("GET", "/a/%7Efoo/./b%41?q=%20+&x=%C3%BC"),
  head: () => byHttp("HEAD", "/"),
  post: () => byHttp("POST", "/", { "Content-Length": body.length }, [body]),
  stream: () => byHttp("PUT", "/", {}, [body.slice(0, 30_000), body.slice(30_000)]),
  delete: () => byHttp("DELETE", "/"),
  chunked: () => byHttp("GET", "/chunked"),
  headers: () => byHttp("GET", "/", { "X-CamelCase": "Yes", x_under: "1", Cookie: "a=1; b=2" }),
  expect: () => byHttp("POST", "/", { Expect: "100-continue", "Content-Length": body.length }, [body]),
  twice: async () => {
    await byHttp("GET", "/first");
    await byHttp("POST", "/second", { "Content-Length": 6 }, ["second"]);
  },
  "fetch-get": () => byFetch("/?q=%20"),
  "fetch-post": () => byFetch("/", { method: "POST", body: JSON.stringify({ a: body }) }),
  "fetch-stream": () => byFetch("/", { method: "PUT", body: ReadableStream.from(stream()), duplex: "half" }),
  "fetch-chunked": () => byFetch("/chunked"),
};

await cases[name]();
