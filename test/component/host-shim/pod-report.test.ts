/** What a node tells of a pod whose guest stands still. */
import test from 'ava'
import { NodeMetrics } from '#host-shim/node/metrics'
import { PodProgress } from '#host-shim/node/pod-progress'
import type { PodRecord } from '#host-shim/node/pod-record'
import { metricsText, reportPod } from '#host-shim/node/pod-report'
import { newProcess, Processes } from '#host-shim/node/processes'
import { AgentClient } from '#host-shim/pod/agent-client'
import { startFakeGuest } from '#test/fixtures/fake-guest'

test('a guest that answers nothing keeps no numbers of the node back: it is asked once', async (t) => {
  const asked: string[] = []
  const silent = (name: string) => () => {
    asked.push(name)
    return new Promise<never>(() => undefined)
  }
  const { vsock } = await startFakeGuest(t, { agent: { getStatus: silent('status'), getStats: silent('stats') } })
  const agent = await AgentClient.connect(vsock)
  t.teardown(() => agent.close())
  const io = { terminal: false, stdin: '', stdout: '', stderr: '' }
  const rest = { process: { env: [], user: '', workingDir: '' }, oomKilled: false, execs: {} }
  const record: PodRecord = {
    version: 1,
    sandboxId: 'pod',
    namespace: 'k8s.io',
    bundle: '/nowhere',
    socket: '',
    containerd: { grpc: '', ttrpc: '' },
    relay: undefined,
    machine: undefined,
    tasks: { c: { ...newProcess(io), status: 'running', id: 'c', bundle: '/nowhere', kind: 'container', ...rest } },
    events: [],
    answers: [],
    begun: [],
  }
  const gone = { pid: 0, startTicks: 0 }
  const machine = {
    agent,
    vsock,
    process: gone,
    exited: new Promise<string>(() => undefined),
    stop: async () => undefined,
  }
  const report = await reportPod({ record, machine, processes: new Processes(record), progress: new PodProgress() })
  t.like(report.containers[0], { id: 'c', state: 'running', memoryBytes: 0 })
  t.deepEqual(asked, ['status'])
  t.regex(metricsText(new NodeMetrics(), [report]), /^caisson_pods 1$/m)
})
