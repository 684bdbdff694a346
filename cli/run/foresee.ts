/**
 * What the guest will say about a wish, said before it boots. The policy is public, so the host may judge by it too; that
 * spares a boot and names the rule. The guest decides all the same.
 */
import { loadConditions } from '#policies/container-conditions'
import { PolicyEngine } from '#policies/engine'
import { parseWorkloadPolicy } from '#policies/workload'
import type { Initdata } from '#protocol/initdata'
import { USER_NETWORK } from '#vmm/qemu/command-line'
import { parsePublish } from './published-port.ts'
import type { ContainerWish } from './run-pod.ts'

/** Throws `DeniedError` ERR_POLICY_DENIED or `MalformedError` ERR_POLICY_MALFORMED. */
export async function foresee(initdata: Initdata, wish: ContainerWish): Promise<void> {
  const policy = parseWorkloadPolicy(initdata.policyYaml)
  const engine = new PolicyEngine(policy, await loadConditions(policy))
  const { image, name, args, env, user, terminal, stdin } = wish
  engine.admitContainer({
    containerId: 'wish',
    name,
    image,
    args,
    env,
    user,
    terminal,
    stdin,
    workingDir: '',
    mounts: [],
    sharesProcesses: false,
    // The guest has no other workload: a standalone run asks for no limits.
    resources: { memoryBytes: 0, cpuQuotaUs: 0, cpuPeriodUs: 0, pids: 0 },
  })
  engine.admitNameServers(USER_NETWORK.nameservers)
  for (const { port } of wish.publish.map(parsePublish)) engine.admitPort(port)
}
