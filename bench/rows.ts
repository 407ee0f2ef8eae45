/** The rows of the benchmark: what each measures, and how its figure is read. */

/** What the load process measured in one cell of one repetition. */
export interface Measure {
  ops: number
  /** Wall-clock seconds of the timed part. */
  seconds: number
  /** CPU seconds in that time of the load process, its children and the peer's server processes. */
  cpuSeconds: number
  /** Of the time of each operation, in microseconds; only where a row asks for it. */
  p99Us?: number
}

export interface Row {
  id: string
  /** {files} stands for the number of files in the tree of this run. */
  title: string
  unit: string
  /** time: smaller is better; rate: larger is better. */
  kind: 'time' | 'rate'
  /** Unit of the operations counted in the CPU table. */
  op: string
  /** Over so many files that --quick skips it. */
  bigTree?: boolean
  /** The figure, in `unit`. */
  value(measure: Measure): number
}

const microseconds = (m: Measure) => m.seconds / m.ops * 1e6
const thousandsPerSecond = (m: Measure) => m.ops / m.seconds / 1e3
const perSecond = (m: Measure) => m.ops / m.seconds
const p99 = (m: Measure) => m.p99Us!
const wholeSeconds = (m: Measure) => m.seconds

export const rows: Row[] = [
  { id: 'statfs', title: 'statfs', unit: 'µs', kind: 'time', op: 'call', value: microseconds },
  { id: 'stat', title: 'stat of an uncached path', unit: 'µs', kind: 'time', op: 'call', value: microseconds },
  { id: 'open', title: 'open + close', unit: 'µs', kind: 'time', op: 'pair', value: microseconds },
  { id: 'create', title: 'create, write 4 KiB, unlink', unit: 'µs', kind: 'time', op: 'file', value: microseconds },
  { id: 'pread', title: 'pread 4 KiB O_DIRECT', unit: 'µs', kind: 'time', op: 'call', value: microseconds },
  { id: 'pread8', title: 'pread 4 KiB O_DIRECT, 8 threads', unit: 'k/s', kind: 'rate', op: 'call', value: thousandsPerSecond },
  { id: 'statfs8', title: 'statfs, 8 threads', unit: 'k/s', kind: 'rate', op: 'call', value: thousandsPerSecond },
  { id: 'pread8p99', title: 'pread 4 KiB O_DIRECT, 8 threads, 99th percentile', unit: 'µs', kind: 'time', op: 'call', value: p99 },
  { id: 'statfs8p99', title: 'statfs, 8 threads, 99th percentile', unit: 'µs', kind: 'time', op: 'call', value: p99 },
  { id: 'seqread', title: 'sequential read, 1 MiB blocks, cold', unit: 'MiB/s', kind: 'rate', op: 'MiB', value: perSecond },
  { id: 'seqwrite', title: 'sequential write, 1 MiB blocks', unit: 'MiB/s', kind: 'rate', op: 'MiB', value: perSecond },
  { id: 'mmap', title: 'mmap, random read of pages, cold', unit: 'k pages/s', kind: 'rate', op: 'page', value: thousandsPerSecond },
  { id: 'git', title: 'git status, {files} files', unit: 's', kind: 'time', op: 'file', bigTree: true, value: wholeSeconds },
  { id: 'untar', title: 'untar of {files} files', unit: 's', kind: 'time', op: 'file', bigTree: true, value: wholeSeconds },
  { id: 'readdir', title: 'readdir + stat of 100,000 files', unit: 's', kind: 'time', op: 'file', bigTree: true, value: wholeSeconds },
]
