package errand

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"batchwarden/platform/secret"
)

// Keys is what comes before the task.
type Keys struct {
	secret.Mute
	Batch [KeySize]byte // seals what is found
	Token [KeySize]byte // opens Task.Token; zeros when there is none
}

// Wipe overwrites both keys.
func (k *Keys) Wipe() { clear(k.Batch[:]); clear(k.Token[:]) }

// kind is a frame's first octet.
type kind byte

const (
	taskFrame    kind = 't' // JSON
	knownFrame   kind = 'k'
	recordFrame  kind = 'r'
	messageFrame kind = 'm' // JSON: a token, a report or a question
)

// Send writes the task. The keys went before it, from locked memory.
func Send(w io.Writer, t *Task) error {
	b, err := appendJSON(nil, taskFrame, t)
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("errand: %w", err)
	}
	return nil
}

// SendKnown writes what is known, all that the task counts and scope by scope,
// after the worker asked for it. Nothing follows it.
func SendKnown(w io.Writer, known iter.Seq[Known]) error {
	p := packer{w: w}
	for k := range known {
		if err := p.add(&k); err != nil {
			return err
		}
	}
	return p.flush()
}

// Orders is the worker's end of what the daemon sends after the task.
type Orders struct {
	r    *bufio.Reader
	held int // documents that the task counts
}

// Receive reads keys and task. The caller wipes the keys. The error is io.EOF
// when nothing is wanted.
func Receive(in io.Reader) (*Keys, *Task, *Orders, error) {
	k := new(Keys)
	_, err := io.ReadFull(in, k.Batch[:])
	if err == nil {
		_, err = io.ReadFull(in, k.Token[:])
		err = unexpected(err)
	}
	if err != nil {
		k.Wipe()
		return nil, nil, nil, fmt.Errorf("errand: keys: %w", err)
	}
	o := &Orders{r: bufio.NewReaderSize(in, buffer)}
	t, err := o.task()
	if err != nil {
		k.Wipe()
		return nil, nil, nil, err
	}
	return k, t, o, nil
}

func (o *Orders) task() (*Task, error) {
	t := new(Task)
	b, err := readFrame(o.r, MaxFrame)
	if err == nil {
		err = decode(b, taskFrame, t)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("errand: task: %w", unexpected(err))
	case t.Generation == 0:
		return nil, errors.New("errand: task: generation 0")
	}
	for scope, n := range t.Held {
		if n < 0 || n > MaxKnown/leastKnown {
			return nil, fmt.Errorf("errand: task: %d documents of %q", n, scope)
		}
		o.held += n
	}
	return t, o.Silent()
}

// Silent is nil as long as nothing came that was not asked for.
func (o *Orders) Silent() error {
	if o.r.Buffered() > 0 {
		return errors.New("errand: something follows the task that was not asked for")
	}
	return nil
}

// Known reads what is known, scope by scope, and that the daemon says no more. It
// is called once, after the question was written.
func (o *Orders) Known() ([]Known, error) {
	known, left := make([]Known, 0, min(o.held, MaxKnown/usualKnown)), int64(MaxKnown)
	for b := []byte(nil); len(known) < o.held; {
		var err error
		if b, err = readFrameInto(b[:0], o.r, left); err == nil {
			left -= int64(len(b)) + 4
			known, err = readKnown(b, known)
		}
		if err == nil && len(known) > o.held {
			err = errors.New("more than the task counts")
		}
		if err != nil {
			return nil, fmt.Errorf("errand: what is known: %w", unexpected(err))
		}
	}
	return known, atEnd(o.r)
}

var errMessage = errors.New("errand: a message is a record, a token, a report or a question")

// one reports whether m is exactly one of what a message can be.
func (m *Message) one() bool {
	n := 0
	for _, is := range [...]bool{m.Put != nil, m.Token != nil, m.Report != nil, m.WantKnown} {
		if is {
			n++
		}
	}
	return n == 1
}

// buffer is how much either end reads or writes at once: what a pipe holds.
const buffer = 64 << 10

// Writer is the worker's end of an answer.
type Writer struct {
	w    io.Writer
	buf  []byte // whole frames that are not written yet
	left int64
	err  error
	done bool
}

// NewWriter returns a Writer of one answer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w, left: MaxAnswer} }

// Message writes m. Records may wait for more of them: without the report they
// are nothing. All else is written with all before it when Message returns. After a report, and after an error of the pipe, nothing more is
// written. Message takes care that records leave room for a report.
func (w *Writer) Message(m Message) error {
	switch {
	case w.err != nil:
		return w.err
	case w.done:
		return errors.New("errand: a message after the report")
	case !m.one():
		return errMessage
	}
	start := len(w.buf)
	b, err := appendMessage(w.buf, m)
	if err != nil {
		return err // nothing was written: the next message may fit
	}
	size, keep := int64(len(b)-start), int64(MaxFrame)
	if m.Report != nil {
		keep = 0
	}
	if size > w.left-keep {
		return fmt.Errorf("%w: an answer of over %d octets", ErrTooLong, MaxAnswer)
	}
	w.buf = b
	w.left -= size
	w.done = m.Report != nil
	if m.Put != nil && len(w.buf) < buffer {
		return nil
	}
	if _, err := w.w.Write(w.buf); err != nil {
		w.err = fmt.Errorf("errand: %w", err)
	}
	w.buf = w.buf[:0]
	return w.err
}

func appendMessage(b []byte, m Message) ([]byte, error) {
	if m.Put != nil {
		return sized(appendRecord(begin(b, recordFrame), m.Put), len(b))
	}
	return appendJSON(b, messageFrame, m)
}

// Reader is the daemon's end of an answer.
type Reader struct {
	r     *bufio.Reader
	left  int64
	asked bool // for what is known, or too late for that
	err   error

	reported bool
}

// NewReader returns a Reader of one answer from r.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, buffer), left: MaxAnswer}
}

// Next returns the next message. The report is the last, and comes before the
// end of the pipe: whoever asks once more waits for that, and gets io.EOF from
// then on. An answer that ends before its report ends in io.ErrUnexpectedEOF.
// Every error stays.
func (r *Reader) Next() (m Message, err error) {
	switch {
	case r.err != nil:
		return Message{}, r.err
	case r.reported:
		if err = atEnd(r.r); err == nil {
			err = io.EOF
		}
	default:
		m, err = r.next()
	}
	if err == nil && m.Report != nil {
		r.reported = true
		if r.r.Buffered() > 0 {
			err = atEnd(r.r)
		}
	}
	if err != nil {
		r.err = err
		return Message{}, err
	}
	return m, nil
}

func (r *Reader) next() (Message, error) {
	b, err := readFrame(r.r, min(MaxFrame, r.left))
	if err != nil {
		return Message{}, fmt.Errorf("errand: answer: %w", unexpected(err))
	}
	r.left -= int64(len(b)) + 4
	var m Message
	if len(b) > 0 && kind(b[0]) == recordFrame {
		m.Put, err = readRecord(b)
	} else {
		err = decode(b, messageFrame, &m)
	}
	if err != nil {
		return Message{}, fmt.Errorf("errand: answer: %w", err)
	}
	switch {
	case !m.one():
		return Message{}, errMessage
	case m.WantKnown && r.asked:
		return Message{}, errors.New("errand: answer: asks a second time, or too late, for what is known")
	}
	r.asked = r.asked || m.WantKnown || m.Put != nil
	return m, nil
}

// begin appends the beginning of a frame, whose length sized fills in.
func begin(b []byte, k kind) []byte { return append(b, 0, 0, 0, 0, byte(k)) }

// sized fills in the length of the frame that begins at start and ends with b.
func sized(b []byte, start int) ([]byte, error) {
	n := len(b) - start - 4
	if n > MaxFrame {
		return nil, fmt.Errorf("%w: a frame of %d octets", ErrTooLong, n)
	}
	binary.BigEndian.PutUint32(b[start:], uint32(n))
	return b, nil
}

func appendJSON(b []byte, k kind, v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("errand: %w", err)
	}
	return sized(append(begin(b, k), text...), len(b))
}

// room is what readFrame makes room for before anything came.
const room = 1 << 20

// readFrame returns io.EOF only where a frame could have begun. It makes room
// as octets come, so that a length alone costs nothing.
func readFrame(r *bufio.Reader, most int64) ([]byte, error) { return readFrameInto(nil, r, most) }

// readFrameInto is readFrame with room that is there already.
func readFrameInto(b []byte, r *bufio.Reader, most int64) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n > most {
		return nil, fmt.Errorf("%w: a frame of %d octets", ErrTooLong, n)
	}
	for have := int64(0); have < n; have = int64(len(b)) {
		more := min(n-have, max(have, room))
		b = slices.Grow(b, int(more))[:have+more]
		if _, err := io.ReadFull(r, b[have:]); err != nil {
			return nil, unexpected(err)
		}
	}
	return b, nil
}

// decode takes a frame of this kind, with one JSON value and nothing after it.
func decode(b []byte, k kind, v any) error {
	if err := isKind(b, k); err != nil {
		return err
	}
	return json.Unmarshal(b[1:], v)
}

func isKind(b []byte, k kind) error {
	switch {
	case len(b) == 0:
		return errors.New("an empty frame")
	case kind(b[0]) != k:
		return fmt.Errorf("a frame of kind %q, want %q; daemon and sync worker may be of different versions", b[0], byte(k))
	}
	return nil
}

func atEnd(r io.Reader) error {
	var one [1]byte
	switch n, err := io.ReadFull(r, one[:]); {
	case n > 0:
		return errors.New("errand: something follows the last message")
	case err != io.EOF:
		return fmt.Errorf("errand: %w", err)
	}
	return nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
