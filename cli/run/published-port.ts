/** `--publish [IP:]PORT:PORT`: where this machine listens, and which port of the guest it leads to. */
import { UsageError } from '#protocol/errors'

export interface PublishedPort {
  /** HOST:PORT */
  readonly listen: string
  readonly port: number
}

/** Throws `UsageError` ERR_USAGE. */
export function parsePublish(text: string): PublishedPort {
  const match = /^(?:(?<ip>\[[0-9a-fA-F:]+\]|\d{1,3}(?:\.\d{1,3}){3}):)?(?<listen>\d{1,5}):(?<port>\d{1,5})$/.exec(text)
  const port = Number(match?.groups?.port)
  if (match === null || port < 1 || port > 65535 || Number(match.groups?.listen) > 65535) {
    throw new UsageError('ERR_USAGE', `--publish ${JSON.stringify(text)} is not [IP:]PORT:PORT`, {
      hint: 'Example: --publish 127.0.0.1:8443:8443',
    })
  }
  return { listen: `${match.groups?.ip ?? '127.0.0.1'}:${match.groups?.listen}`, port }
}
