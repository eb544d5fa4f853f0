package admin

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

// outcome surrounds every call: an error leaves as a code with words meant for
// the caller, and what was not meant for the caller goes to the log.
func (s *service) outcome(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) (err error) {
		defer func() {
			if cause := recover(); cause != nil {
				s.Logger.Error("admin call panicked", "procedure", spec.Procedure, "cause", cause, "stack", string(debug.Stack()))
				err = connect.NewError(connect.CodeInternal, "the server failed; its log says more")
			}
		}()
		return s.translate(ctx, spec.Procedure, next(ctx, spec, stream))
	}
}

func (s *service) translate(ctx context.Context, procedure string, err error) error {
	var problems manifest.Problems
	var written *connect.Error
	var refused *Refused
	switch {
	case err == nil:
		return nil
	case errors.As(err, &problems): // of the JSON codec
		violations := make([]*errdetails.BadRequest_FieldViolation, len(problems))
		for i, p := range problems {
			violations[i] = &errdetails.BadRequest_FieldViolation{Field: p.Field, Description: p.Message, Reason: string(ReasonInvalid)}
		}
		return badRequest(connect.CodeInvalidArgument, summary(problems), violations)
	case errors.As(err, &written):
		return err
	case errors.As(err, &refused):
		s.Logger.Info("call refused", "procedure", procedure, "reason", err.Error())
		return refusal(refused, func(resource.Ref) resource.Path { return "" })
	case errors.Is(err, errors.ErrUnsupported):
		return connect.NewError(connect.CodeUnimplemented, err.Error())
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrTooNew):
		return connect.NewError(connect.CodeFailedPrecondition, err.Error()).WithCause(err)
	case errors.Is(err, ErrUnavailable):
		s.Logger.Warn("admin call failed", "procedure", procedure, "error", err)
		return connect.NewError(connect.CodeUnavailable, s.unavailable(ctx)).WithCause(err)
	case errors.Is(err, ErrUnknown):
		s.Logger.Warn("admin call failed", "procedure", procedure, "error", err)
		return connect.Errorf(connect.CodeUnknown, "%s: it may have been done; look before trying again", ErrUnknown).WithCause(err)
	}
	s.Logger.Error("admin call failed", "procedure", procedure, "error", err)
	return connect.NewError(connect.CodeInternal, "the server failed; its log says more").WithCause(err)
}

// refusal is the answer to a command that the store decided against. index
// finds the resources of the request, "" for those that were not in it.
func refusal(refused *Refused, index func(resource.Ref) resource.Path) *connect.Error {
	violations := make([]*errdetails.BadRequest_FieldViolation, len(refused.Violations))
	for i, v := range refused.Violations {
		violation := &errdetails.BadRequest_FieldViolation{Description: v.Message, Reason: string(v.Reason)}
		if at := index(v.Ref); at == "" {
			violation.Description = v.String()
		} else {
			violation.Field = string(at)
			if v.Field != "" {
				violation.Field = string(at.Field(v.Field))
			}
		}
		violations[i] = violation
	}
	return badRequest(codeOf(refused), summary(refused.Violations), violations)
}

// codeOf: what is not there is NotFound only as the thing to delete; a
// reference to nothing is a wrong declaration.
func codeOf(refused *Refused) connect.Code {
	missing := 0
	inTheWay := false
	for _, v := range refused.Violations {
		switch {
		case v.Reason == ReasonConflict:
			return connect.CodeAborted
		case v.Reason == ReasonExists:
			return connect.CodeAlreadyExists
		case v.Reason == ReasonNotFound && v.Field == "":
			missing++
		case v.Reason == ReasonInUse, v.Reason == ReasonState:
			inTheWay = true
		}
	}
	switch {
	case missing == len(refused.Violations):
		return connect.CodeNotFound
	case inTheWay:
		return connect.CodeFailedPrecondition
	}
	return connect.CodeInvalidArgument
}

func badRequest(code connect.Code, message string, violations []*errdetails.BadRequest_FieldViolation) *connect.Error {
	err := connect.NewError(code, message)
	detail, packErr := connectproto.NewErrorDetail(&errdetails.BadRequest{FieldViolations: violations})
	if packErr != nil {
		return err.WithCause(packErr)
	}
	return err.WithDetail(detail)
}

// invalid is a refusal of one field of a request.
func invalid(field, format string, args ...any) *connect.Error {
	message := fmt.Sprintf(format, args...)
	return badRequest(connect.CodeInvalidArgument, field+": "+message,
		[]*errdetails.BadRequest_FieldViolation{{Field: field, Description: message, Reason: string(ReasonInvalid)}})
}

// String is "Route books: spec.rules[0].…: message".
func (v Violation) String() string {
	var parts []string
	if v.Ref.Kind != "" {
		parts = append(parts, v.Ref.String())
	}
	if v.Field != "" {
		parts = append(parts, v.Field)
	}
	return strings.Join(append(parts, v.Message), ": ")
}

// summary is the first few of a list, for callers that do not read details.
func summary[T any](list []T) string {
	const most = 5
	var parts []string
	for _, element := range list[:min(len(list), most)] {
		parts = append(parts, fmt.Sprint(element))
	}
	if more := len(list) - most; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, "; ")
}
