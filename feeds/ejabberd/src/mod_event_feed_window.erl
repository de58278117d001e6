%%% What is on its way to the component: the numbers between the last one that
%%% was acknowledged and the last one sent, of one connection after the other.
-module(mod_event_feed_window).

-export([new/1, begin_at/2, cut/1, next/1, is_open/2, is_past/2, is_suspect/2, sent/2, lost/3, acknowledged/2]).

-record(window, {sent = 0 :: non_neg_integer(),   % the last number on the wire
		 base = 0 :: non_neg_integer(),   % the last one acknowledged
		 tried = 0 :: non_neg_integer(),  % the last one sent before the last resume or connection
		 before = 0 :: non_neg_integer(), % the last one of earlier runs of the server
		 %% Losses announced behind base.
		 gaps = [] :: [{pos_integer(), pos_integer()}]}).

-opaque window() :: #window{}.
-export_type([window/0]).

%% new takes the last number of the epoch that an earlier run of the server has given.
-spec new(non_neg_integer()) -> window().
new(Before) -> #window{before = Before}.

%% begin_at goes on behind a number, which the component has.
-spec begin_at(non_neg_integer(), window()) -> window().
begin_at(Seq, Window) ->
    Cut = cut(Window), % a repeated resume goes back
    Cut#window{sent = Seq, base = Seq, gaps = []}.

%% cut is the end of the connection.
-spec cut(window()) -> window().
cut(#window{sent = Sent, tried = Tried} = Window) ->
    Window#window{tried = max(Sent, Tried)}.

-spec next(window()) -> pos_integer().
next(#window{sent = Sent}) -> Sent + 1.

%% is_open says whether one more may follow. Stanzas are counted, hence a loss
%% counts for one, whatever its length.
-spec is_open(pos_integer(), window()) -> boolean().
is_open(Size, #window{sent = Sent, base = Base, gaps = Gaps}) ->
    Sent - Base - lists:sum([To - From || {From, To} <- Gaps]) < Size.

%% is_past says whether the component can have this number.
-spec is_past(pos_integer(), window()) -> boolean().
is_past(Seq, #window{sent = Sent, tried = Tried, before = Before}) ->
    Seq =< max(Before, max(Sent, Tried)).

%% is_suspect says whether this number was sent before: a connection may have ended
%% because of it.
-spec is_suspect(pos_integer(), window()) -> boolean().
is_suspect(Seq, #window{tried = Tried}) -> Seq =< Tried.

-spec sent(pos_integer(), window()) -> window().
sent(Seq, Window) -> Window#window{sent = Seq}.

-spec lost(pos_integer(), pos_integer(), window()) -> window().
lost(From, To, #window{gaps = Gaps} = Window) ->
    Window#window{sent = To, gaps = [{From, To} | Gaps]}.

%% acknowledged moves the window, or says that the number was never sent.
-spec acknowledged(pos_integer(), window()) -> {ok, window()} | error.
acknowledged(Seq, #window{sent = Sent}) when Seq > Sent ->
    error;
acknowledged(Seq, #window{base = Base, gaps = Gaps} = Window) ->
    {ok, Window#window{base = max(Base, Seq), gaps = [Gap || {From, _} = Gap <- Gaps, From > Seq]}}.
