/**
 * Connections through an HTTP proxy (RFC 9110 section 9.3.6, CONNECT), for https and http alike: the proxy sees where
 * to, and of https nothing more. Environment variables are not read: whoever wants a proxy says so.
 */
import { connect as connectTcp, type LookupFunction, type Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls'
import { UnavailableError, UsageError } from '../errors.ts'

export interface ProxyOptions {
  /** http or https, with user name and password if the proxy wants them. */
  readonly url: string
  /** Hosts that are reached directly: names, and with a leading dot every name below. "*" is all. */
  readonly noProxy?: readonly string[]
}

interface TlsOptions {
  readonly ca: readonly string[]
  readonly lookup: LookupFunction
  readonly timeoutMs: number
}

interface Destination {
  readonly hostname: string
  readonly port: string
  readonly protocol: string
  readonly servername?: string | null
}

type Callback = (...answer: [error: Error, socket: null] | [error: null, socket: Socket | TLSSocket]) => void

const MAX_ANSWER_BYTES = 16 * 1024

/** What undici connects with. Throws `UsageError` ERR_HTTP_URL for a proxy's URL that is none. */
export function proxyConnector(proxy: ProxyOptions, tls: TlsOptions): (to: Destination, done: Callback) => void {
  const url = URL.canParse(proxy.url) ? new URL(proxy.url) : undefined
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new UsageError('ERR_HTTP_URL', 'the proxy is not an http or https URL', {
      hint: 'Example: http://proxy.example:3128',
    })
  }
  return (to, done) => {
    open(to, url, { proxy, tls }).then(
      (socket) => done(null, socket),
      (error: Error) => done(error, null),
    )
  }
}

/** Whether a host is one of those that need no proxy. */
export function isDirect(hostname: string, noProxy: readonly string[]): boolean {
  const host = hostname.toLowerCase()
  return noProxy.some((entry) => {
    const name = entry.trim().toLowerCase()
    if (name === '') return false
    return name === '*' || host === name || host === name.slice(1) || (name.startsWith('.') && host.endsWith(name))
  })
}

async function open(
  to: Destination,
  proxy: URL,
  { proxy: { noProxy = [] }, tls }: { proxy: ProxyOptions; tls: TlsOptions },
): Promise<Socket | TLSSocket> {
  const port = Number(to.port) || (to.protocol === 'https:' ? 443 : 80)
  const direct = isDirect(to.hostname, noProxy)
  const socket = direct
    ? await dial({ host: to.hostname, port, secure: false }, tls)
    : await tunnel(proxy, `${to.hostname}:${port}`, tls)
  if (to.protocol !== 'https:') return socket
  return await secured(socket, to.servername ?? to.hostname, tls)
}

async function tunnel(proxy: URL, authority: string, tls: TlsOptions): Promise<Socket> {
  const secure = proxy.protocol === 'https:'
  const port = Number(proxy.port) || (secure ? 443 : 80)
  const socket = await dial({ host: proxy.hostname, port, secure }, tls)
  const login = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`
  const authorization =
    proxy.username === '' ? '' : `proxy-authorization: Basic ${Buffer.from(login).toString('base64')}\r\n`
  socket.write(`CONNECT ${authority} HTTP/1.1\r\nhost: ${authority}\r\n${authorization}\r\n`)
  const status = await answerOf(socket, tls.timeoutMs)
  if (status === 200) return socket
  socket.destroy()
  throw new UnavailableError(
    'ERR_HTTP_PROXY',
    `${proxy.host}: the proxy answers ${status} to a tunnel to ${authority}`,
    {
      hint: 'Check the proxy, its user name and password, and whether it allows this destination.',
    },
  )
}

/** Status of the answer's head; what follows belongs to the tunnel, and servers speak second there. */
function answerOf(socket: Socket, timeoutMs: number): Promise<number> {
  return new Promise((resolve, reject) => {
    let head = ''
    const failed = (why: string): void => {
      socket.destroy()
      reject(new UnavailableError('ERR_HTTP_PROXY', `the proxy ${why}`))
    }
    const timer = setTimeout(() => failed('did not answer in time'), timeoutMs)
    const ended = (): void => failed('closed the connection')
    const read = (chunk: Buffer): void => {
      head += chunk.toString('latin1')
      const end = head.indexOf('\r\n\r\n')
      if (end === -1 && head.length <= MAX_ANSWER_BYTES) return
      clearTimeout(timer)
      socket.off('data', read).off('close', ended).pause()
      const [, status] = /^HTTP\/1\.[01] ([0-9]{3})/.exec(head) ?? []
      if (end === -1 || status === undefined || end + 4 !== head.length)
        failed('answered with something that is no HTTP')
      else resolve(Number(status))
    }
    socket.on('data', read).on('close', ended)
  })
}

function dial(to: { host: string; port: number; secure: boolean }, tls: TlsOptions): Promise<Socket | TLSSocket> {
  const { host, port } = to
  return new Promise((resolve, reject) => {
    const socket = to.secure
      ? connectTls({ host, port, servername: host, ...tlsOptions(tls), lookup: tls.lookup })
      : connectTcp({ host, port, lookup: tls.lookup })
    settle(socket, to.secure ? 'secureConnect' : 'connect', tls.timeoutMs).then(() => resolve(socket), reject)
  })
}

async function secured(socket: Socket, servername: string, tls: TlsOptions): Promise<TLSSocket> {
  const inner = connectTls({ socket, servername, ...tlsOptions(tls) })
  await settle(inner, 'secureConnect', tls.timeoutMs)
  return inner
}

function tlsOptions({ ca }: TlsOptions): ConnectionOptions {
  return { ca: [...ca], minVersion: 'TLSv1.2', rejectUnauthorized: true, ALPNProtocols: ['http/1.1'] }
}

function settle(socket: Socket, event: 'connect' | 'secureConnect', timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const finish = (error?: Error): void => {
      clearTimeout(timer)
      socket.off('error', finish).off(event, finish)
      if (error === undefined) resolve()
      else reject(error)
    }
    const timer = setTimeout(() => {
      socket.destroy()
      finish(Object.assign(new Error('connect timeout'), { code: 'ETIMEDOUT' }))
    }, timeoutMs)
    socket.on('error', finish).on(event, finish)
  })
}
