package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/weirmesh/weir/bench/measure"
)

// load asks at fixed times; a wait begins when a request was due, so that one
// which is late makes the next ones late, too.
type load struct {
	any bool // any answer will do; else 200

	waits  measure.Histogram // once it has stopped
	failed int
	first  error

	mu     sync.Mutex
	cancel context.CancelFunc
	all    sync.WaitGroup
}

func (l *load) start(ctx context.Context, address string, connections int, rate float64) {
	ctx, l.cancel = context.WithCancel(ctx)
	every, begin := time.Duration(float64(time.Second)*float64(connections)/rate), time.Now()
	for i := range connections {
		l.all.Go(func() {
			l.loop(ctx, "http://"+address+"/books", begin.Add(every*time.Duration(i)/time.Duration(connections)), every)
		})
	}
}

func (l *load) loop(ctx context.Context, url string, due time.Time, every time.Duration) {
	var waits measure.Histogram
	transport := &http.Transport{MaxConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	for ; ; due = due.Add(every) {
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			l.mu.Lock()
			l.waits.Add(&waits)
			l.mu.Unlock()
			return
		}
		err := l.ask(client, url)
		waits.Record(time.Since(due))
		if err != nil {
			l.mu.Lock()
			l.failed++
			if l.first == nil {
				l.first = err
			}
			l.mu.Unlock()
		}
	}
}

func (l *load) ask(client *http.Client, url string) error {
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if !l.any && (answer.StatusCode != http.StatusOK || answer.Header.Get("x-stamped") != "yes") {
		return fmt.Errorf("answer %s with the policy's header %q", answer.Status, answer.Header.Get("x-stamped"))
	}
	return nil
}

// stop ends it once what is under way has its answer.
func (l *load) stop() error {
	l.cancel()
	l.all.Wait()
	if l.waits.Count() == 0 {
		return fmt.Errorf("no request was answered%s", l.why())
	}
	return nil
}

func (l *load) why() string {
	if l.first == nil {
		return ""
	}
	return ": " + l.first.Error()
}
