import { createServer, type Server } from 'node:http'
import { askDaemon } from '#host-shim/node/ask-daemon'
import { monitorSocketIn } from '#host-shim/node/monitor-socket'
import { UnavailableError } from '#protocol/errors'
import type { CommandSpec } from '../command.ts'
import { parseListen } from '../listen-address.ts'
import { NODE_STATE_OPTION } from '../node-paths.ts'
import { untilStopped } from '../signals.ts'

const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

export const monitor: CommandSpec = {
  path: 'monitor',
  summary: 'Serves the numbers of this node and its pods to Prometheus.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {
    ...NODE_STATE_OPTION,
    socket: {
      type: 'string',
      placeholder: 'PATH',
      help: 'on which the daemon tells what it measures, and no more (default: monitor/monitor.sock in --state)',
    },
    listen: { type: 'string', placeholder: 'ADDRESS:PORT', help: 'where to listen', default: '127.0.0.1:9464' },
  },
  examples: ['caisson monitor', 'caisson monitor --listen 127.0.0.1:9000 --state /run/caisson'],
  run: async (invocation) => {
    const socket = invocation.string('socket') ?? monitorSocketIn(invocation.required('state'))
    const { host, port } = parseListen(invocation.required('listen'), 'listen')
    const server = await listen(host, port, () => metrics(socket))
    const address = server.address()
    const bound = typeof address === 'object' && address !== null ? address.port : port
    const url = `http://${host.includes(':') ? `[${host}]` : host}:${bound}/metrics`
    invocation.out.result({ url, pid: process.pid }, `metrics at ${url}`)
    await untilStopped()
    server.close()
    server.closeAllConnections()
    return 0
  },
}

/** A node whose daemon does not answer is told as such: its pods go on, and somebody should look. */
async function metrics(socket: string): Promise<string> {
  const up = (value: 0 | 1): string =>
    `# HELP caisson_node_up Whether the daemon of the node answers.\n# TYPE caisson_node_up gauge\ncaisson_node_up ${value}\n`
  try {
    return `${up(1)}${await askDaemon(socket, 'metrics')}`
  } catch {
    return up(0)
  }
}

function listen(host: string, port: number, body: () => Promise<string>): Promise<Server> {
  const server = createServer((request, response) => {
    if (request.url !== '/metrics' || request.method !== 'GET') {
      response.writeHead(404).end()
      return
    }
    void body().then((text) => response.writeHead(200, { 'content-type': CONTENT_TYPE }).end(text))
  })
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      reject(
        new UnavailableError('ERR_MONITOR_LISTEN', `cannot listen on ${host}:${port}`, {
          hint: 'Choose another place: --listen ADDRESS:PORT',
          cause,
        }),
      )
    })
    server.listen({ host, port }, () => resolve(server))
  })
}
