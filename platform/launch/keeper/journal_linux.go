package keeper

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"batchwarden/platform/launch"
	"batchwarden/platform/safefile"
)

// The journal is a file of JSON lines that only grows until it is written anew. A job begins with a start record,
// before anything of it exists, and ends with an end record; what has no end was not seen to end.
const (
	journalName   = "journal.jsonl"
	journalFormat = 1
	maxRecord     = 1 << 20

	kindJournal = "journal" // the first line: Format, and the numbers in use so far
	kindStart   = "start"   // Job, and all of its thread that is known
	kindRun     = "run"     // Job with Serial, PID and ByPath only, Box, At
	kindKill    = "kill"    // Job with Serial only, Kill, Canceled
	kindEnd     = "end"     // Job
	kindForget  = "forget"  // Job with Serial only
)

type record struct {
	Kind   string `json:"kind"`
	Format int    `json:"format,omitempty"`
	Serial uint64 `json:"serial,omitempty"`
	End    uint64 `json:"end,omitempty"`
	thread
	Job *launch.Job `json:"job,omitempty"`
}

// thread is what the next launcher takes a job up by where this one leaves it.
type thread struct {
	Boot    string        `json:"boot,omitempty"` // of the machine, when the job was started
	Keep    time.Duration `json:"keep,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"`
	Grace   time.Duration `json:"grace,omitempty"`
	Capture int64         `json:"capture,omitempty"`
	Script  bool          `json:"script,omitempty"` // it has a file

	Box string        `json:"box,omitempty"` // the job's cgroup; "" without
	At  time.Duration `json:"at,omitempty"`  // a boot time at which the job's PID was its first process's
	// Kill is the boot time at which those who are left then are killed, after a signal with a grace; 0: no such time.
	Kill     time.Duration `json:"kill,omitempty"`
	Canceled bool          `json:"canceled,omitempty"` // that signal was launch.Cancel
}

// remembered is a job as the journal has it.
type remembered struct {
	launch.Job
	thread
}

// history is what a journal says.
type history struct {
	serial, end uint64 // the highest numbers used
	jobs        []*remembered
	damaged     int // lines that could not be understood, beside a torn last one
}

// journal appends. Its methods may be called from several goroutines.
type journal struct {
	path  string
	every time.Duration // 0: each append is on the disk when it returns
	log   *slog.Logger
	wake  chan struct{} // something was appended

	mu   sync.Mutex // guards file, size and err
	file *os.File
	size int64
	err  error // the file's end is not known: nothing more can be appended
}

// openJournal reads the journal in dir and writes it anew without what is forgotten. A damaged one is kept beside it.
func openJournal(dir string, every time.Duration, log *slog.Logger) (*journal, history, error) {
	j := &journal{path: filepath.Join(dir, journalName), every: every, log: log, wake: make(chan struct{}, 1)}
	h, err := readJournal(j.path)
	if err != nil {
		return nil, history{}, err
	}
	if h.damaged > 0 {
		kept := fmt.Sprintf("%s.damaged-%d", j.path, time.Now().Unix())
		log.Error("journal has lines that cannot be understood; a copy is kept", "lines", h.damaged, "copy", kept)
		if err := os.Link(j.path, kept); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, history{}, fmt.Errorf("keeper: journal: %w", err)
		}
	}
	if err := j.rewrite(h); err != nil {
		return nil, history{}, err
	}
	return j, h, nil
}

func readJournal(path string) (h history, err error) {
	f, err := safefile.Open(path, safefile.Rules{Self: true, Mode: 0o600})
	if errors.Is(err, fs.ErrNotExist) {
		return history{}, nil
	}
	if err != nil {
		return history{}, fmt.Errorf("keeper: journal: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	bySerial := map[uint64]*remembered{}
	r := bufio.NewReaderSize(f, maxRecord)
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF): // a line without an end was torn: what it announced has not happened
			return h.ordered(bySerial), nil
		case errors.Is(err, bufio.ErrBufferFull):
			h.damaged++
			continue
		case err != nil:
			return history{}, fmt.Errorf("keeper: journal: %w", err)
		}
		if err := h.apply(bytes.TrimSuffix(line, []byte("\n")), bySerial); err != nil {
			return history{}, fmt.Errorf("keeper: %q: %w", path, err)
		}
	}
}

// apply takes one line in. Its error is a journal that this program must not write to.
func (h *history) apply(line []byte, jobs map[uint64]*remembered) error {
	var r record
	if json.Unmarshal(line, &r) != nil || r.Kind != kindJournal && r.Job == nil || r.Kind == kindJournal && r.Format < 1 {
		h.damaged++
		return nil
	}
	if r.Kind == kindJournal {
		if r.Format > journalFormat {
			return fmt.Errorf("a newer version of batchwarden wrote this journal: format %d, this version understands up to %d; install the newer version again, or, once no job runs any more, move the journal away: what it says of jobs is lost with it",
				r.Format, journalFormat)
		}
		h.serial, h.end = max(h.serial, r.Serial), max(h.end, r.End)
		return nil
	}
	serial := r.Job.Serial
	h.serial, h.end = max(h.serial, serial), max(h.end, r.Job.EndSeq)
	known := jobs[serial]
	switch {
	case r.Kind == kindStart:
		jobs[serial] = &remembered{*r.Job, r.thread}
	case known == nil:
		// The rest of a job whose beginning was forgotten, or damaged and counted there.
	case r.Kind == kindRun:
		known.PID, known.State, known.ByPath, known.Box, known.At = r.Job.PID, launch.StateRunning, r.Job.ByPath, r.Box, r.At
	case r.Kind == kindKill:
		known.Kill, known.Canceled = r.Kill, known.Canceled || r.Canceled
	case r.Kind == kindEnd:
		hash, note := known.Hash, known.Note
		known.Job = *r.Job
		known.Hash, known.Note = hash, note
	case r.Kind == kindForget:
		delete(jobs, serial)
	default:
		h.damaged++
	}
	return nil
}

func (h history) ordered(jobs map[uint64]*remembered) history {
	for _, j := range jobs {
		h.jobs = append(h.jobs, j)
	}
	slices.SortFunc(h.jobs, func(a, b *remembered) int { return int(int64(a.Serial - b.Serial)) })
	return h
}

// rewrite replaces the file by one that says h and nothing else.
func (j *journal) rewrite(h history) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	err := enc.Encode(record{Kind: kindJournal, Format: journalFormat, Serial: h.serial, End: h.end})
	for _, job := range h.jobs {
		err = errors.Join(err, enc.Encode(record{Kind: kindStart, Job: &job.Job, thread: job.thread}))
	}
	if err != nil {
		return fmt.Errorf("keeper: journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := safefile.WriteAtomic(j.path, text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("keeper: journal: %w", err)
	}
	f, err := os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("keeper: journal: %w", err)
	}
	if j.file != nil {
		err = j.file.Close() // replaced by what was written and synced above
	}
	j.file, j.size, j.err = f, int64(text.Len()), nil
	return err
}

// append writes one record; when it fails the journal is as before.
func (j *journal) append(r record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("keeper: journal: %w", err)
	}
	if len(line) >= maxRecord {
		return fmt.Errorf("keeper: journal: a record of %d octets", len(line))
	}
	line = append(line, '\n')

	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return j.err
	}
	if _, err := j.file.Write(line); err != nil {
		// Half a line must not become the beginning of the next one.
		if cut := j.file.Truncate(j.size); cut != nil {
			j.err = fmt.Errorf("keeper: journal: %w", errors.Join(err, cut))
		}
		return fmt.Errorf("keeper: journal: %w", err)
	}
	j.size += int64(len(line))
	// What helps the next launcher alone is of no use after a power failure.
	if j.every == 0 && r.Kind != kindRun && r.Kind != kindKill {
		if err := j.file.Sync(); err != nil {
			// What reached the disk is not known, and asking again would not tell.
			j.err = fmt.Errorf("keeper: journal: %w", err)
			return j.err
		}
		return nil
	}
	select {
	case j.wake <- struct{}{}:
	default:
	}
	return nil
}

// run puts what was appended onto the disk in time, until done is closed, and then the last of it.
func (j *journal) run(done <-chan struct{}) {
	for {
		select {
		case <-done:
			j.sync()
			return
		case <-j.wake:
		}
		select {
		case <-done:
		case <-time.After(j.every / 2): // all that is appended meanwhile shares one fsync
		}
		j.sync()
	}
}

func (j *journal) sync() {
	j.mu.Lock()
	f := j.file
	j.mu.Unlock()
	// Not under the lock: launches go on meanwhile.
	if err := f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		j.log.Error("journal cannot be synced to the disk", "err", err)
		j.mu.Lock()
		j.err = fmt.Errorf("keeper: journal: %w", err)
		j.mu.Unlock()
	}
}

// sound reports whether records can still be appended.
func (j *journal) sound() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err == nil
}

func (j *journal) length() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.size
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = errors.New("keeper: journal: closed")
	}
	return j.file.Close()
}
