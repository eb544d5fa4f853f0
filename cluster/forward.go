package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/cluster/rpc"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// forward sends a batch to the leader. What came from another member does not
// go on to a third: whoever sent it finds out for himself who leads.
func (n *Node) forward(proposals []*proposal) {
	var own []*proposal
	for _, p := range proposals {
		if p.far {
			p.done <- outcome{err: ErrNotLeader}
		} else {
			own = append(own, p)
		}
	}
	leader, period := n.leadership.now()
	if len(own) == 0 || leader == "" || leader == n.cfg.Name || n.cfg.Network == nil {
		refuse(own, ErrNotLeader)
		return
	}
	term := n.raft.CurrentTerm()
	n.forwards <- struct{}{}
	n.serving.Go(func() {
		for _, p := range own {
			n.machine.awaited.add(p.id)
			defer n.machine.awaited.remove(p.id)
		}
		answers, err := n.send(period, leader, term, own)
		<-n.forwards
		notify(n.arrived)
		n.settle(own, answers, err, term)
	})
}

// send makes the call. It is given up when somebody else leads and what that one
// decides is applied here, and when no caller waits any more. A leader that hands
// over still says what it did not take.
func (n *Node) send(period context.Context, leader string, term uint64, proposals []*proposal) ([]decided, error) {
	ctx, cancel := context.WithCancel(n.life)
	var succeeding sync.WaitGroup
	defer succeeding.Wait()
	defer cancel()
	succeeding.Go(func() {
		select {
		case <-period.Done():
			n.awaitSuccessor(ctx, term)
			cancel()
		case <-ctx.Done():
		}
	})
	var left atomic.Int64
	left.Store(int64(len(proposals)))
	commands := make([]forwarded, len(proposals))
	for i, p := range proposals {
		stop := context.AfterFunc(p.ctx, func() {
			if left.Add(-1) == 0 {
				cancel()
			}
		})
		defer stop()
		commands[i] = forwarded{command: p.command}
		if deadline, ok := p.ctx.Deadline(); ok {
			commands[i].timeout = max(time.Until(deadline), time.Millisecond)
		}
	}
	code, payload, err := n.call(ctx, leader, methodPropose, encodeForwarded(commands))
	if err != nil {
		return nil, err
	}
	if err := decodeError(code, payload); err != nil {
		return nil, err
	}
	answers, err := decodeDecided(payload)
	if err == nil && len(answers) != len(proposals) {
		err = errMessage
	}
	return answers, err
}

// awaitSuccessor waits for an entry of a later term to be applied here, and not for
// ever.
func (n *Node) awaitSuccessor(ctx context.Context, term uint64) {
	patience := time.NewTimer(2 * n.cfg.Election)
	defer patience.Stop()
	for {
		_, newest, changed := n.machine.now()
		if newest > term {
			return
		}
		select {
		case <-changed:
		case <-patience.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// settle gives each caller what became of his command, which was sent in a term.
func (n *Node) settle(proposals []*proposal, answers []decided, err error, term uint64) {
	switch {
	case errors.Is(err, rpc.ErrNotSent), errors.Is(err, ErrNotLeader):
		refuse(proposals, ErrNotLeader)
		return
	case err != nil:
		answers = make([]decided, len(proposals))
		for i := range answers {
			answers[i] = decided{code: codeUnknown, text: []byte(fmt.Sprintf("%s: %s", ErrUnknown, err))}
		}
	}
	// What has no answer may still turn up in the log: that is one too.
	patience := time.NewTimer(4 * n.cfg.Election)
	defer patience.Stop()
	for i, p := range proposals {
		switch d := answers[i]; d.code {
		case codeDone:
			p.done <- n.resultOf(p, d.index, d.place)
		case codeUnknown:
			if result, found := n.turnsUp(p, term, patience.C); found {
				p.done <- outcome{result: result}
			} else {
				p.done <- outcome{err: decodeError(d.code, d.text)}
				patience.Reset(0) // the others have waited too
			}
		default:
			p.done <- outcome{err: decodeError(d.code, d.text)}
		}
	}
}

// resultOf waits until the command at a place was applied here, and returns its
// result.
func (n *Node) resultOf(p *proposal, index uint64, place int) outcome {
	for {
		applied, _, changed := n.machine.now()
		if result, found := n.machine.awaited.find(p.id, index, place); found {
			return outcome{result: result, index: index, place: place}
		}
		if applied >= index {
			return outcome{err: fmt.Errorf("%w: it was done, but this member caught up by a snapshot and has not seen the result", ErrUnknown)}
		}
		select {
		case <-changed:
		case <-p.ctx.Done():
			return outcome{err: fmt.Errorf("%w: it was done, but not applied here yet: %w", ErrUnknown, context.Cause(p.ctx))}
		case <-n.hurry.Done():
			return outcome{err: fmt.Errorf("%w: it was done, but not applied here: %w", ErrUnknown, ErrClosed)}
		}
	}
}

// turnsUp waits a while for a command of which nobody knows. Where an entry of a
// later term was applied, what was decided in this one was before it.
func (n *Node) turnsUp(p *proposal, term uint64, patience <-chan time.Time) (any, bool) {
	for {
		_, newest, changed := n.machine.now()
		if result, found := n.machine.awaited.any(p.id); found || newest > term {
			return result, found
		}
		select {
		case <-changed:
		case <-patience:
			return n.machine.awaited.any(p.id)
		case <-p.ctx.Done():
			return nil, false
		case <-n.hurry.Done():
			return nil, false
		}
	}
}

// answer is what other members call.
func (n *Node) answer(ctx context.Context, member string, method byte, payload []byte) (byte, []byte) {
	if !n.begin() {
		return encodeError(ErrClosed)
	}
	defer n.calls.Done()
	var result []byte
	var err error
	switch method {
	case methodPropose, methodRead, methodRemove, methodTransfer:
		// What one asks that is no member, it learns with the roster.
		if !n.leads() || !n.isMember(member) {
			return encodeError(ErrNotLeader)
		}
	}
	switch method {
	case methodPropose:
		result, err = n.answerPropose(ctx, payload)
	case methodRead:
		result, err = n.answerRead(ctx)
	case methodRoster:
		result, err = n.answerRoster(member, payload)
	case methodJoin:
		result, err = n.answerJoin(ctx, member, payload)
	case methodRemove, methodTransfer:
		err = n.answerOrder(ctx, method, payload)
	default:
		err = fmt.Errorf("call %d is not known to this version", method)
	}
	if err != nil {
		return encodeError(err)
	}
	return codeDone, result
}

// checkForwarded keeps out of the log what no state machine could read: every
// member would end on it, at every start.
func checkForwarded(command []byte) error {
	if len(command) > MaxCommand {
		return ErrTooLarge
	}
	if err := proto.Unmarshal(command, new(weirv1.Command)); err != nil {
		return fmt.Errorf("read command: %w", err)
	}
	if commandKind(command) < firstKind {
		return errors.New("read command: it has no action")
	}
	return nil
}

// answerPropose takes another member's commands into this one's queue.
func (n *Node) answerPropose(ctx context.Context, payload []byte) ([]byte, error) {
	commands, err := decodeForwarded(payload)
	if err != nil {
		return nil, err
	}
	if !n.leads() {
		return nil, ErrNotLeader
	}
	answers := make([]decided, len(commands))
	proposals := make([]*proposal, len(commands))
	for i, c := range commands {
		if err := checkForwarded(c.command); err != nil {
			return nil, err
		}
		waits, cancel := ctx, context.CancelFunc(func() {})
		if c.timeout > 0 {
			waits, cancel = context.WithTimeout(ctx, c.timeout)
		}
		defer cancel()
		proposals[i] = newProposal(waits, c.command)
		proposals[i].far = true
	}
	queued := 0
	for _, p := range proposals {
		select {
		case n.proposals <- p:
			queued++
			continue
		case <-ctx.Done():
		}
		break
	}
	for i, p := range proposals {
		if i >= queued {
			p.taken.Store(true)
			answers[i].code, answers[i].text = encodeError(context.Cause(ctx))
			continue
		}
		out := p.wait()
		answers[i] = decided{index: out.index, place: out.place}
		if out.err != nil {
			answers[i].code, answers[i].text = encodeError(out.err)
		}
	}
	return encodeDecided(answers), nil
}
