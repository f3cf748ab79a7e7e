package errand

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Keys is what comes before the task.
type Keys struct {
	Batch [KeySize]byte // seals what is found
	Token [KeySize]byte // opens Task.Token; zeros when there is none
}

// Wipe overwrites both keys.
func (k *Keys) Wipe() { clear(k.Batch[:]); clear(k.Token[:]) }

// String keeps the keys out of every log and message.
func (k Keys) String() string { return "errand.Keys" }

// GoString is String.
func (k Keys) GoString() string { return k.String() }

// Send writes the task. The keys went before it, from locked memory.
func Send(w io.Writer, t *Task) error { return writeFrame(w, t) }

// Receive reads keys and task, and that the daemon says no more. The caller wipes the keys.
func Receive(r io.Reader) (*Keys, *Task, error) {
	k := new(Keys)
	for _, key := range []*[KeySize]byte{&k.Batch, &k.Token} {
		if _, err := io.ReadFull(r, key[:]); err != nil {
			k.Wipe()
			return nil, nil, fmt.Errorf("errand: keys: %w", err)
		}
	}
	t := new(Task)
	err := readTask(r, t)
	if err != nil {
		k.Wipe()
		return nil, nil, err
	}
	return k, t, nil
}

func readTask(r io.Reader, t *Task) error {
	b, err := readFrame(r, MaxFrame)
	if err != nil {
		return fmt.Errorf("errand: task: %w", unexpected(err))
	}
	if err := decode(b, t); err != nil {
		return fmt.Errorf("errand: task: %w", err)
	}
	if t.Generation == 0 {
		return errors.New("errand: task: generation 0")
	}
	return atEnd(r)
}

var errMessage = errors.New("errand: a message is a record, a token or a report")

// one reports whether m is exactly one of what a message can be.
func (m *Message) one() bool {
	n := 0
	for _, is := range [3]bool{m.Put != nil, m.Token != nil, m.Report != nil} {
		if is {
			n++
		}
	}
	return n == 1
}

// Writer is the worker's end of an answer.
type Writer struct {
	w    io.Writer
	left int64
	err  error
	done bool
}

// NewWriter returns a Writer of one answer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w, left: MaxAnswer} }

// Message writes m. After a report, and after an error, nothing more is
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
	b, err := frame(m)
	if err != nil {
		return err // nothing was written: the next message may fit
	}
	keep := int64(MaxFrame)
	if m.Report != nil {
		keep = 0
	}
	if int64(len(b)) > w.left-keep {
		return fmt.Errorf("%w: an answer of over %d octets", ErrTooLong, MaxAnswer)
	}
	w.left -= int64(len(b))
	w.done = m.Report != nil
	if _, err := w.w.Write(b); err != nil {
		w.err = fmt.Errorf("errand: %w", err)
	}
	return w.err
}

// Reader is the daemon's end of an answer.
type Reader struct {
	r    io.Reader
	left int64
	err  error
}

// NewReader returns a Reader of one answer from r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r, left: MaxAnswer} }

// Next returns the next message. The report is the last: after it Next has seen
// the end of the pipe, and returns io.EOF from then on. An answer that ends
// before its report ends in io.ErrUnexpectedEOF. Every error stays.
func (r *Reader) Next() (Message, error) {
	if r.err != nil {
		return Message{}, r.err
	}
	m, err := r.next()
	if err == nil && m.Report != nil {
		r.err = io.EOF
		err = atEnd(r.r)
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
	if err := decode(b, &m); err != nil {
		return Message{}, fmt.Errorf("errand: answer: %w", err)
	}
	if !m.one() {
		return Message{}, errMessage
	}
	return m, nil
}

func writeFrame(w io.Writer, v any) error {
	b, err := frame(v)
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("errand: %w", err)
	}
	return nil
}

func frame(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("errand: %w", err)
	}
	if len(text) > MaxFrame {
		return nil, fmt.Errorf("%w: a frame of %d octets", ErrTooLong, len(text))
	}
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(text)), uint32(len(text))), text...), nil
}

// readFrame returns io.EOF only where a frame could have begun. It makes room
// as octets come, so that a length alone costs nothing.
func readFrame(r io.Reader, most int64) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n > most {
		return nil, fmt.Errorf("%w: a frame of %d octets", ErrTooLong, n)
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, n); err != nil {
		return nil, unexpected(err)
	}
	return b.Bytes(), nil
}

// decode takes one JSON value and nothing after it. Unknown members pass: the
// two programs may be of different versions during an upgrade.
func decode(b []byte, v any) error {
	if len(b) == 0 {
		return errors.New("an empty frame")
	}
	return json.Unmarshal(b, v)
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
