%%% What survives a restart of the server: after a clean stop the events that
%%% were not acknowledged, otherwise the name of the epoch that was lost.
-module(mod_event_feed_spool).

-export([save/1, take/0, note_epoch/2, last_epoch/1]).

-include("logger.hrl").

-define(RING, "event_feed.ring").
-define(EPOCH, "event_feed.epoch").
-define(MAGIC, "event_feed 1\n").

%% save writes a term in such a way that the file is either whole or not there.
-spec save(term()) -> ok | {error, term()}.
save(Term) ->
    write(?RING, term_to_binary(Term)).

%% take returns what save has kept, once: what was taken and lives on must not
%% be taken again after a crash.
-spec take() -> {ok, term()} | none.
take() ->
    case read(?RING) of
	{ok, Data} ->
	    Term = binary_to_term(Data),
	    case file:delete(path(?RING)) of
		ok ->
		    {ok, Term};
		{error, Why} ->
		    ?ERROR_MSG("Cannot remove ~ts, hence its events are not sent: ~ts",
			       [path(?RING), file:format_error(Why)]),
		    none
	    end;
	none ->
	    none
    end.

%% note_epoch remembers the epoch that begins.
-spec note_epoch(binary(), binary()) -> ok | {error, term()}.
note_epoch(Source, Epoch) ->
    write(?EPOCH, term_to_binary({Source, Epoch})).

%% last_epoch is the epoch that the source noted last.
-spec last_epoch(binary()) -> {ok, binary()} | none.
last_epoch(Source) ->
    case read(?EPOCH) of
	{ok, Data} ->
	    case binary_to_term(Data) of
		{Source, Epoch} -> {ok, Epoch};
		_ -> none
	    end;
	none ->
	    none
    end.

path(Name) ->
    filename:join(mnesia:system_info(directory), Name).

write(Name, Data) ->
    Path = path(Name),
    New = Path ++ ".new",
    Text = [?MAGIC, <<(erlang:crc32(Data)):32>>, Data],
    maybe_done(Path,
	       [fun() -> filelib:ensure_dir(Path) end,
		fun() -> write_and_sync(New, Text) end,
		fun() -> file:rename(New, Path) end]).

maybe_done(_Path, []) ->
    ok;
maybe_done(Path, [Step | Steps]) ->
    case Step() of
	ok ->
	    maybe_done(Path, Steps);
	{error, Why} = Err ->
	    ?ERROR_MSG("Cannot write ~ts: ~ts", [Path, file:format_error(Why)]),
	    Err
    end.

write_and_sync(Path, Text) ->
    case file:open(Path, [write, raw, binary]) of
	{ok, File} ->
	    Done = case file:write(File, Text) of
		       ok -> file:sync(File);
		       Err -> Err
		   end,
	    _ = file:close(File),
	    Done;
	Err ->
	    Err
    end.

read(Name) ->
    case file:read_file(path(Name)) of
	{ok, <<?MAGIC, Sum:32, Data/binary>>} ->
	    case erlang:crc32(Data) of
		Sum -> {ok, Data};
		_ -> damaged(Name)
	    end;
	{ok, _} ->
	    damaged(Name);
	{error, enoent} ->
	    none;
	{error, Why} ->
	    ?ERROR_MSG("Cannot read ~ts: ~ts", [path(Name), file:format_error(Why)]),
	    none
    end.

damaged(Name) ->
    ?ERROR_MSG("~ts is damaged and not used; it is kept as ~ts.damaged", [path(Name), Name]),
    _ = file:rename(path(Name), path(Name ++ ".damaged")),
    none.
