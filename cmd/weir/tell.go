package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/weirmesh/weir/resource/manifest"
)

// tell says what went wrong: problems of files a line each, the rest in one
// sentence, with a hint where there is one.
func tell(stderr io.Writer, err error) {
	var problems manifest.Problems
	if errors.As(err, &problems) {
		fmt.Fprintln(stderr, problems)
		noun := "problem"
		if len(problems) > 1 {
			noun = "problems"
		}
		fmt.Fprintf(stderr, "weir: %d %s; nothing was changed\n", len(problems), noun)
		if connect.CodeOf(err) == connect.CodeAborted {
			fmt.Fprintln(stderr, "hint: read it again (weir get … -o yaml) and repeat; without metadata.revision apply overwrites what is there")
		}
		return
	}
	fmt.Fprintf(stderr, "weir: %s\n", sentence(err))
	if hint := hintFor(err); hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", hint)
	}
}

// sentence leaves out the code of a call's error: the words are enough.
func sentence(err error) string {
	var answered *connect.Error
	if errors.As(err, &answered) && answered.IsRemote() && answered.Message() != "" {
		return strings.Replace(err.Error(), answered.Error(), answered.Message(), 1)
	}
	return err.Error()
}

func hintFor(err error) string {
	var lost *unreachableError
	if errors.As(err, &lost) {
		return lost.hint
	}
	var process *processError
	if errors.As(err, &process) {
		return process.hint()
	}
	// How net/http answers who speaks no TLS to a port that wants it.
	if strings.HasSuffix(err.Error(), "400 Bad Request") {
		return "the server may want TLS: give the address with https://, and --ca"
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated:
		return "set WEIR_TOKEN, or give --token; a server's DATA/admin.env holds both"
	case connect.CodeAborted:
		return "someone else changed it meanwhile: read it again (weir get … -o yaml) and repeat"
	case connect.CodeFailedPrecondition:
		switch {
		case strings.Contains(err.Error(), "no majority"):
			return "start the servers that do not answer, or let another join first; if they are lost for good, repeat it with --force"
		case strings.Contains(err.Error(), "replaced by the backup"):
			return "if that is meant, repeat it with --force"
		}
	case connect.CodeUnavailable:
		if strings.Contains(err.Error(), "members reachable") {
			return "weir cluster status and weir cluster doctor say more; weir get --stale reads what this member has"
		}
	case connect.CodeUnimplemented:
		if strings.Contains(err.Error(), errors.ErrUnsupported.Error()) {
			return "" // it has said so itself
		}
		return "the server is older than this program, or the address is not that of an admin API"
	}
	return ""
}

// violations are the fields that a refusal names.
func violations(err error) []*errdetails.BadRequest_FieldViolation {
	var answered *connect.Error
	if !errors.As(err, &answered) {
		return nil
	}
	var all []*errdetails.BadRequest_FieldViolation
	for _, detail := range answered.Details() {
		if m, err := connectproto.UnmarshalErrorDetail(detail); err == nil {
			if bad, ok := m.(*errdetails.BadRequest); ok {
				all = append(all, bad.GetFieldViolations()...)
			}
		}
	}
	return all
}

// inFiles turns a refusal into problems of the files that the resources of the
// request came from. What belongs to no file is told without a place.
func inFiles(err error, items []manifest.Item) error {
	var problems manifest.Problems
	for _, v := range violations(err) {
		rest, ok := strings.CutPrefix(v.GetField(), "resources[")
		number, field, _ := strings.Cut(rest, "]")
		if i, bad := strconv.Atoi(number); ok && bad == nil && i < len(items) {
			problems = append(problems, items[i].Problem(strings.TrimPrefix(field, "."), v.GetDescription()))
			continue
		}
		problems = append(problems, manifest.Problem{Field: v.GetField(), Message: v.GetDescription()})
	}
	if len(problems) == 0 {
		return err
	}
	return &refusedFiles{problems, err}
}

// refusedFiles keeps the code of the refusal beside the problems.
type refusedFiles struct {
	problems manifest.Problems
	cause    error
}

func (e *refusedFiles) Error() string   { return e.problems.Error() }
func (e *refusedFiles) Unwrap() []error { return []error{e.problems, e.cause} }
