/** What the commands print of names that others have chosen. */
import t from 'tap'
import { columns, printable } from '../../bin/table.js'

t.test('control characters do nothing to the terminal, and break no line', async t => {
  t.equal(printable('a\nb\tc\x1b[31md\x7f\x9be'), 'a\\x0ab\\x09c\\x1b[31md\\x7f\\x9be')
  t.equal(printable('ümläut €'), 'ümläut €')
  t.equal(columns([['n\nl', 'x'], ['name', 'y']]), 'n\\x0al  x\nname    y')
})
