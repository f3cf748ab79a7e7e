package keeper

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"batchwarden/platform/launch"
)

const (
	// maxList bounds how many jobs one answer has; a job is at most some 20 KiB of JSON.
	maxList = 128
)

// call carries out one request; give is sent with the answer.
func (k *keeper) call(ctx context.Context, r *launch.Request, files []*os.File) (a launch.Answer, give *os.File, err error) {
	switch r.Call {
	case launch.CallStart:
		if r.Spec == nil {
			return a, nil, &launch.Refused{Code: launch.CodeInvalid, Reason: "there is nothing to start"}
		}
		job, again, err := k.launch(ctx, r.Spec, files[0], files[1:]...)
		return launch.Answer{Job: &job, Again: again}, nil, err
	case launch.CallJob:
		job, err := k.wait(ctx, r.Owner, r.ID, r.Wait)
		return launch.Answer{Job: &job}, nil, err
	case launch.CallJobs:
		return k.list(r.Owner, r.After), nil, nil
	case launch.CallEnded:
		return launch.Answer{Jobs: k.endedAfter(ctx, r.After, r.Wait)}, nil, nil
	case launch.CallOutput:
		give, err := k.output(r.Owner, r.ID, r.Stream)
		return a, give, err
	case launch.CallSignal:
		job, err := k.signal(ctx, r.Owner, r.ID, r.Signal, r.Wait)
		return launch.Answer{Job: &job}, nil, err
	case launch.CallSync:
		exit, err := k.sync(ctx, files[0], files[1])
		return launch.Answer{Exit: exit}, nil, err
	case launch.CallStatus:
		return launch.Answer{State: k.state()}, nil, nil
	case launch.CallForget:
		return a, nil, k.forget(r.Owner, r.ID, r.After)
	case launch.CallCheck:
		if r.Spec == nil {
			return a, nil, &launch.Refused{Code: launch.CodeInvalid, Reason: "there is nothing to check"}
		}
		checks, err := k.checks(ctx, r.Spec, files[0], r.As)
		return launch.Answer{Checks: checks}, nil, err
	case launch.CallAttest:
		at, err := k.attest(ctx, files[0], r.Want)
		return launch.Answer{Peer: at}, nil, err
	case launch.CallResolve:
		numbers, err := k.resolve(r.Names)
		return launch.Answer{Numbers: numbers}, nil, err
	case launch.CallVerify:
		verified, err := k.verify(ctx, r.Verify, files[0])
		return launch.Answer{Verified: verified}, nil, err
	case launch.CallLogLevel:
		level, err := k.logLevel(ctx, r.Level)
		return launch.Answer{Level: level}, nil, err
	case launch.CallSystemd:
		give, err := k.giveSystemd()
		return a, give, err
	case launch.CallWitness:
		highest, err := k.witness.tell(r.Witness, r.Settle)
		return launch.Answer{Witness: highest}, nil, err
	}
	return a, nil, &launch.Refused{Code: launch.CodeUnsupported, Reason: fmt.Sprintf(
		"batchwarden-launcher is of version %s, which does not know the call %q: install both services of one version and restart the launcher; running jobs go on", k.Version, r.Call)}
}

func (k *keeper) find(owner, id string) (*job, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	j := k.jobs[key{owner, id}]
	if j == nil {
		return nil, &launch.Refused{Code: launch.CodeUnknown, Reason: fmt.Sprintf("no job %q of %q is known", id, owner)}
	}
	return j, nil
}

// wait returns a job as it is when it has ended or the time is up.
func (k *keeper) wait(ctx context.Context, owner, id string, wait time.Duration) (launch.Job, error) {
	j, err := k.find(owner, id)
	if err != nil {
		return launch.Job{}, err
	}
	if wait > 0 {
		timer := time.NewTimer(min(wait, launch.MaxWait))
		defer timer.Stop()
		select {
		case <-j.over:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return k.snapshot(j), nil
}

// list returns jobs with serials above after.
func (k *keeper) list(owner string, after uint64) (a launch.Answer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var found []*job
	for _, j := range k.jobs {
		if j.Serial > after && (owner == "" || owner == j.Owner) {
			found = append(found, j)
		}
	}
	slices.SortFunc(found, func(x, y *job) int { return cmp.Compare(x.Serial, y.Serial) })
	a.More = len(found) > maxList
	for _, j := range found[:min(len(found), maxList)] {
		a.Jobs = append(a.Jobs, j.Job)
	}
	return a
}

// endedAfter waits for ends above after.
func (k *keeper) endedAfter(ctx context.Context, after uint64, wait time.Duration) (jobs []launch.Job) {
	timer := time.NewTimer(min(wait, launch.MaxWait))
	defer timer.Stop()
	for {
		k.mu.Lock()
		from, _ := slices.BinarySearchFunc(k.ended, after+1, func(j *job, seq uint64) int { return cmp.Compare(j.EndSeq, seq) })
		for _, j := range k.ended[from:min(len(k.ended), from+maxList)] {
			jobs = append(jobs, j.Job)
		}
		news := k.news
		k.mu.Unlock()
		if len(jobs) > 0 {
			return jobs
		}
		select {
		case <-news:
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (k *keeper) output(owner, id, stream string) (*os.File, error) {
	j, err := k.find(owner, id)
	if err != nil {
		return nil, err
	}
	return openOutput(k.StateDir, j.Serial, stream)
}

func (k *keeper) state() *launch.State {
	k.mu.Lock()
	s := &launch.State{Running: len(k.live), Kept: len(k.ended), Containment: k.boxes.String()}
	unwritten := len(k.pending)
	k.mu.Unlock()
	if k.Problems != nil {
		s.Problems = k.Problems()
	}
	if !k.root {
		s.Problems = append(s.Problems, notRoot)
	}
	if unwritten > 0 {
		s.Problems = append(s.Problems, fmt.Sprintf("launcher: the ends of %d jobs cannot be written to the journal", unwritten))
	}
	if !k.journal.sound() {
		s.Problems = append(s.Problems, "launcher: the journal cannot be written")
	}
	return s
}
