/** The user's terminal in raw mode while a program in a guest owns it; restored when disposed. */
export function rawTerminal(wanted: boolean, onResize: (columns: number, rows: number) => void): Disposable {
  if (!wanted || !process.stdin.isTTY) return { [Symbol.dispose]: () => {} }
  const resize = (): void => onResize(process.stdout.columns, process.stdout.rows)
  process.stdin.setRawMode(true)
  process.stdout.on('resize', resize)
  resize()
  return {
    [Symbol.dispose]: () => {
      process.stdout.off('resize', resize)
      process.stdin.setRawMode(false)
      process.stdin.pause()
    },
  }
}
