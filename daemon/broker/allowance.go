package broker

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
	"batchwarden/platform/peer"
)

// penalty is how long a request over the rate waits for its refusal: a client
// that does not heed it then costs next to nothing.
const penalty = 100 * time.Millisecond

// allowance is how much one client may ask: rate is a bucket that is full at
// the beginning and holds what comes into it in the rate's own time; most is
// how many requests may be in progress.
type allowance struct {
	rate config.Rate
	most int // 0: any number

	mu     sync.Mutex // guards what follows
	tokens float64
	at     time.Time // when tokens was right
	busy   int
}

// newAllowance is nil for a client without limits.
func newAllowance(c *config.Client) *allowance {
	if c.Rate.Unlimited() && c.Concurrent == 0 {
		return nil
	}
	return &allowance{rate: c.Rate, most: c.Concurrent, tokens: float64(c.Rate.Events)}
}

// enter lets a request in, or says why not and after what time it may be made
// again. A request that was let in has to leave.
func (a *allowance) enter(now time.Time) (wait time.Duration, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.most > 0 && a.busy >= a.most {
		return time.Second, fmt.Sprintf("%d requests of this client are in progress, as many as its entry allows (concurrent)", a.busy)
	}
	if !a.rate.Unlimited() {
		if !a.at.IsZero() {
			a.tokens = min(float64(a.rate.Events), a.tokens+now.Sub(a.at).Seconds()*a.rate.PerSecond())
		}
		a.at = now
		if a.tokens < 1 {
			wait = time.Duration((1 - a.tokens) / a.rate.PerSecond() * float64(time.Second))
			return wait, fmt.Sprintf("this client asks more often than its entry allows (rate: %d in %s)", a.rate.Events, a.rate.Per)
		}
		a.tokens--
	}
	a.busy++
	return 0, ""
}

func (a *allowance) leave() {
	a.mu.Lock()
	a.busy--
	a.mu.Unlock()
}

// Admit lets a request of the caller in, if his client entry's rate and
// concurrent allow one more. leave is to be called when it was answered. What
// else the caller may do is not looked at here.
func (b *Broker) Admit(ctx context.Context, p *peer.Connection) (leave func(), err error) {
	c := b.identify(ctx, p)
	if c.allowed == nil {
		return func() {}, nil
	}
	wait, why := c.allowed.enter(time.Now())
	if why == "" {
		return c.allowed.leave, nil
	}
	select {
	case <-ctx.Done():
	case <-time.After(min(wait, penalty)):
	}
	return nil, overloaded(why, wait)
}

// Stranger reports that no client entry can be the peer's, and that he is no
// operator. He may ask who he is, and what ails this machine, and needs few
// connections for that.
func (b *Broker) Stranger(p *peer.Connection) bool { return b.view.Load().callers.stranger(&p.Peer) }

// overloaded is the problem of a request that may be made again after wait.
func overloaded(why string, wait time.Duration) *wire.Problem {
	p := wire.NewProblem(wire.Overloaded, why)
	p.RetryAfter = max(1, int(math.Ceil(wait.Seconds())))
	return p
}
