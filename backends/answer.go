package backends

import "context"

type answerKey struct{}

// WithAnswer returns a context for Publish whose backend hands what its service answers to
// told, a line each and without secrets. The backend calls told before Publish returns, by
// any goroutine, but one at a time.
func WithAnswer(ctx context.Context, told func(line string)) context.Context {
	return context.WithValue(ctx, answerKey{}, told)
}

// Answer hands a line to who has asked for it by WithAnswer. line is called only then.
func Answer(ctx context.Context, line func() string) {
	if told, ok := ctx.Value(answerKey{}).(func(string)); ok {
		told(line())
	}
}
