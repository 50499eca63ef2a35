"""Small calls of every public function and class, with each annotation checked at run time. Run by test_shapes.py.

A new function needs a call here: the script fails and names what was never called.
"""
# ruff: noqa: E402, I001
import argparse
import ast
import collections
import functools
import importlib.util
import inspect
import io
import os
import sys
import tempfile
from contextlib import redirect_stdout, suppress
from pathlib import Path

from jaxtyping import install_import_hook

install_import_hook('videomamba_nb', 'beartype.beartype')
os.environ['TRITON_INTERPRET'] = '1' # kernels run on the CPU

import matplotlib.pyplot as plt
import numpy as np
import torch

import videomamba_nb
from videomamba_nb import adapt, annotations, answers, attention, augment, block_cpu, block_ops, bmamba, build, cached
from videomamba_nb import caption_data, caption_files, caption_rules, captions, check_data, checkpoint, cli, commands
from videomamba_nb import contract, core, data, datasets, demo, digits, distill, evaluate, events, explorer, export
from videomamba_nb import features, films, flops, index_file, indexing, inference, layout, lists, loading, long_video
from videomamba_nb import lookup, masked, masks, model, objective, onnx_export, pair_losses, pair_train, parallel
from videomamba_nb import pieces, policy, pretrained, product_cpu, protocol, published, question_files, quiz, ranking
from videomamba_nb import reading, recipe, released, rerun, retrieval, saliency, saving, scale, scan, scan_chunked
from videomamba_nb import scan_cpu, scan_order, scan_triton, scan_triton_bwd, search, search_commands, search_page
from videomamba_nb import search_parts, sensitivity, shard_train, shards, sources, ssm, step, streaming, teacher
from videomamba_nb import text_encoder, torch_file, towers, train, training, triton_kernels, usage, usage_data
from videomamba_nb import usage_search, vectors, video, video_encoder, videotext, viz, weights, words, zero_shot, zoo

del os.environ['TRITON_INTERPRET'] # the kernels keep their interpreter; `auto` need not know

LONG = set() if importlib.util.find_spec('triton') else {'scan_triton.scan_forward', 'scan_triton.scan_backward',
    'scan_triton_bwd.backward'} # calls that take minutes; the notebooks make them
SMALL = dict(img_size=8, patch_size=4, depth=2, embed_dim=8, num_classes=3, num_frames=2)


def call_core(tmp):
    core.set_seed(0)
    x = torch.ones(2, 3)
    core.test_tensor(x, x.clone(), **core.tolerance(x.dtype, 'cpu'))
    core.at_least_f32(x.bfloat16())
    core.default_device()
    with core.atomic_write(tmp/'a') as f: f.write_text('a')
    core.cache_dir()
    core.need('math', 'python', 'This')
    core.pair(3), core.pair((3, 4), 'patch_size')
    core.fill_by_rule(torch.nn.Linear(2, 3))
    core.input_by_rule(2, 3)

def call_viz(tmp):
    viz.set_style()
    clip = np.zeros((2, 4, 6, 3), dtype=np.uint8)
    viz.tint('#0072B2', .5)
    viz.show_frames(clip, ['a', 'b'])
    viz.show_lines({'a': [1, 2], 'b': np.arange(2.)}, x=[0, 1], colors=['k', 'r'])
    viz.show_bars({'a': 1., 'b': 2.}, errors={'a': .1})
    viz.show_matrix(np.eye(2), rows=['a', 'b'], cols=['c', 'd'], fmt='{:.1f}')
    viz.show_path(np.arange(4).reshape(1, 2, 2), backward=True)
    viz.show_overlay(clip, np.ones((1, 2, 3)))
    plt.close('all')

def call_video(tmp):
    path = tmp/'clip.mp4'
    video.write_video(path, np.random.default_rng(0).integers(0, 255, (12, 32, 48, 3)).astype(np.uint8), fps=10)
    video.video_length(path)
    video.read_frames(str(path), lambda n: np.arange(n), 'av')
    with suppress(video.VideoError): video.read_frames(tmp/'none.mp4', lambda n: np.arange(n))
    grey = (30*np.arange(8, dtype=np.uint8))[:,None,None,None].repeat(32, 1).repeat(32, 2).repeat(3, 3)
    video.write_video(tmp/'grey.mp4', grey, fps=5)
    numbers = lambda frames: [round(float(f.mean())/30) for f in frames]
    video.check_reader(video.read_frames, {tmp/'grey.mp4': list(range(8))}, numbers)
    return path

def call_data(tmp):
    path = call_video(tmp)
    rng = np.random.default_rng(0)
    for kind in ('sparse', 'ssv2', 'dense'):
        data.sample_frames(20, 8, kind, 'train', rng=rng)
        data.sample_frames(20, 8, kind, 'test', 1, 3)
    clip = data.read_video(path, 4)
    data.read_video(str(path), None, backend='av')
    clip = data.resize_short(clip, 24)
    data.crop(clip, 0, 1, 24), data.view_crop(clip, 1, 3), data.random_crop(clip, 16, rng)
    data.denormalize(data.normalize(data.center_crop(clip, 24)))
    (tmp/'list.txt').write_text('clip.mp4 0\n')
    samples = data.read_list(tmp/'list.txt', tmp)
    ds = data.VideoDataset(samples, num_frames=2, size=16, mode='train', flip=True, classes=('a', 'b'))
    ds.set_epoch(1)
    ds.in_memory()
    plain = lambda clip, size, rng: data.normalize(data.random_crop(clip, size, rng))
    data.VideoDataset(samples, 2, 16, mode='train', augment=plain, copies=2)[0]
    ds[0], ds.frames(0, rng), len(ds), data.VideoDataset(samples, 2, 16, mode='test', num_clips=2, num_crops=3)[0]

def call_lists_and_sources(tmp):
    path,folder = call_video(tmp),tmp/'frames'
    (tmp/'l.csv').write_text('clip.mp4,1,2.5\n')
    rows,_ = lists.scan_rows(str(tmp/'l.csv'), [('path', 'label'), ('path', 'label', 'duration')], ',')
    lists.read_rows(tmp/'l.csv', more=True), lists.check_rows(rows, 2), lists.check_rows(rows), rows[0].where
    lists.check_lists(lambda p: [r[:2] for r in lists.read_rows(p)], tmp)
    folder.mkdir()
    for i in range(1, 5): plt.imsave(folder/f'img_{i:05}.jpg', np.zeros((24, 32, 3), dtype=np.uint8))
    row,pic,how = rows[0]._replace(path=str(path), frames=4),str(folder/'img_00001.jpg'),dict(num_frames=2, size=16)
    sources.sample_folder(9, 4, 'train', rng=np.random.default_rng(0)), sources.sample_window(0, 9, 4, 'test', 1, 2)
    sources.time_windows(2, .5, .5, .1), sources.frame_span('a', 9, 3., 0, 2.), sources.read_pictures([pic, Path(pic)])
    sources.center_picture(sources.read_pictures([pic]), 16)
    for ds in (sources.ListedVideos([row], True, **how), sources.VideoWindows([row], 1., 1., .5, **how),
               sources.FrameFolders([row._replace(path=str(folder))], **how)):
        ds[0], ds.frames(0), ds.whole(0), ds.in_memory()
    still = sources.Pictures([row._replace(path=pic)], 16)
    still[0], still.frames(0), still.whole(0)
    sources.check_dataset(lambda mode: sources.VideoWindows([row], mode=mode, **how), (3, 2, 16, 16))

def call_datasets(tmp):
    call_video(tmp)
    assert all(annotations.find_dataset(o.name).columns for o in annotations.list_datasets())
    repr(annotations.list_datasets()), datasets.view_target(9), datasets.like_target(3., 1)
    (tmp/'train.csv').write_text('clip.mp4 1\ngrey.mp4 0\n')
    csv = annotations.find_dataset('csv')
    annotations.find_list(str(tmp), 'train'), annotations.name_classes(csv, tmp, [])
    rows = annotations.read_split(csv, tmp).rows
    (tmp/'classInd.txt').write_text('1 Bowling\n')
    (tmp/'trainlist01.txt').write_text('Bowling/a.avi 1\n')
    (tmp/'wave_test_split1.txt').write_text('a.avi 1\n')
    annotations.ucf_rows(tmp, 'train'), annotations.hmdb_rows(str(tmp), 'train')
    found,root = datasets.locate_rows(csv, tmp, rows, prefix=str(tmp))
    datasets.lost_files(csv, found), datasets.hint_missing(found, root)
    datasets.open_dataset('csv', str(tmp), num_frames=2, size=16)[0], datasets.open_dataset(csv, tmp/'train.csv', size=16)
    for o in ('train', ['train'], None): report = check_data.check_data('csv', tmp, o, decode=None, show=False)
    repr(report), report.ok, report.to_dict(), check_data.merged_names(['a', 'b/a'])
    check_data.spread(9, 2), check_data.try_file(csv, found[0])

def call_captions(tmp):
    path,how = call_video(tmp),dict(num_frames=2, size=16)
    row = caption_files.Captioned(str(path), ('It turns left', 'A'), 0)
    rows = [row, row._replace(path=str(tmp/'no.mp4'), idx=1)]
    caption_files.number_rows(rows, 'caption'), caption_files.rows_per_file(rows), caption_files.rows_per_caption(rows)
    lists = [caption_files.write_captions(rows, tmp/f'l.{end}', str(tmp)) for end in ('csv', 'json', 'db')]
    caption_files.read_captions(lists[0]), caption_files.read_captions(lists)
    caption_files.read_captions([str(tmp/'l.json')], [tmp], by='row', media='video'), caption_files.is_picture('a.png')
    rng = np.random.default_rng(0)
    caption_rules.pick_frames(9, 4, rng, True), caption_rules.rate_frames(9, 2, 5, .5)
    caption_rules.first_seconds(99, 25, 2)
    caption_rules.has_sides('left'), caption_rules.swap_sides('left'), caption_rules.mirrored_numbers(rows)
    data = caption_data.CaptionDataset(rows, mode='train', flip='swap', **how)
    items = [data[0], data[0]]
    caption_data.collate_captions(items), data.numbered(3).look_up([3]), data.numbered()[0], data.look_up(torch.tensor([0]))
    data.frames(0, rng), data.clip(0), data.text(0), data.mirrored(0), data.whole(0), data.set_epoch(2)
    caption_data.CaptionDataset(rows[:1], flip=False, rule='fps2', seconds=1.5, fit='center', **how).in_memory()[0]
    caption_data.squeeze(np.zeros((2, 9, 8, 3), dtype=np.uint8), 4), caption_data.check_captions(rows)
    caption_data.present_rows(rows), caption_data.check_pairs(lambda o: caption_data.CaptionDataset(o, **how), str(tmp))
    (tmp/'mc.json').write_text('[{"video": "a", "caption": ["x", "y"], "answer": 1}]')
    (tmp/'qa.json').write_text('[{"video": "a", "question": "q", "question_id": 1, "answer": ["x", "y"]}]')
    (tmp/'answers.json').write_text('["x"]')
    question_files.read_choices(str(tmp/'mc.json')), question_files.read_answers(tmp/'answers.json')
    question_files.answerable(question_files.read_questions(tmp/'qa.json', 'r'), ['x'])

def call_digits(tmp):
    rng = np.random.default_rng(0)
    digit,photo = digits.split_digits('test')[:1],digits.load_photo('coins.png')
    for motion in digits.MOTIONS: digits.walk(motion, rng.random(4), .5)
    digits.draw_clip('left', rng.integers(0, 17, (8, 8)), photo, rng), digit
    digits.render('grow', np.zeros((8, 8)), photo, digits.draw_look(rng), num_frames=4, size=16)
    digits.moving_digits('valid', root=tmp, n=2)[1]
    digits.unseen_clip(tmp/'unseen.mp4', 'up')

def call_policy_and_augment(tmp):
    rng,clip = np.random.default_rng(0),np.random.default_rng(0).integers(0, 255, (2, 16, 20, 3)).astype(np.uint8)
    for o in (policy.read_policy('rand-m7-n4-mstd0.5-inc1'), policy.rand_augment('rand-inc1'), policy.auto_augment()):
        policy.apply_steps(clip, o.draw(rng), fill=(1, 2, 3))
    policy.RandAugment().ops, policy.AutoAugment(), policy.Op(None), policy.draw_step('Rotate', 5., 1., rng, .5)
    box = augment.crop_box(16, 20, rng)
    x = augment.cut_numbers(data.normalize(augment.cut_bytes(clip, box, 12, 'bicubic')), (1, 1, 8, 8), 10)
    augment.multi_scale_box(16, 20, 8, rng), augment.erase_box(16, 20, rng), augment.random_erase(x, rng, 1.)
    augment.augment_for('k400', weak=True, erase=1.)(clip, 8, rng)
    augment.check_augment(augment.Augment)

def call_captioned(tmp):
    scene = captions.Scene(7, 'red', 'left')
    assert captions.scene_of(captions.caption_of(scene)) == scene
    captions.scene_look(scene, np.random.default_rng(0))
    captions.scene_table(captions.captioned_digits('valid', tmp, n=2, size=16))
    captions.unseen_scene(Path(tmp)/'scene.mp4', 'a red seven growing')

def call_events(tmp):
    rng = np.random.default_rng(0)
    events.who_wins(0, 1)
    pictures = events.event_pictures(np.zeros((3, 8, 8)), digits.load_photo('coins.png'), events.draw_events_look(rng), 16)
    events.render_events(2, 0, pictures, events.event_times(rng, 16), 16)
    d = events.long_events('valid', 16, n=6, root=tmp)
    d[1], events.event_table(d)

def call_ssm(tmp):
    ssm.discretise(torch.ones(3), -1.)
    ssm.as_groups(torch.ones(2, 3, 4), 2, 4), ssm.as_groups(torch.ones(5, 3), 2, 4)
    ssm.scan_form(lambda *a: a)
    ssm.selective_scan_seq(**contract.rand_scan('full'))

def call_scan(tmp):
    for case in contract.SCAN_CASES:
        for backend in ('auto', 'seq', 'tree', 'chunked'):
            for dtype in (torch.float32, torch.float64, torch.bfloat16):
                args = contract.rand_scan(case, dtype)
                scan.selective_scan(**args | dict(return_last_state=True, backend=backend))
    for name,why in scan.scan_backends().items():
        if why: continue
        contract.check_scan(lambda *a, name=name, **kw: scan.selective_scan(*a, backend=name, **kw))
        contract.check_bi_scan(lambda *a, name=name, **kw: scan.bi_selective_scan(*a, backend=name, **kw))

def call_build(tmp):
    build.build_key('int x;', ['cc']), build.flag_sets(), build.cpu_id()
    if build.compilers():
        source = 'int probe(void) { return 0; }'
        for check in (None, lambda lib: None): build.load_library(source + f'/* {check} */', 'under_hook', check)
    with suppress(build.BuildError): build.load_library('no C', 'under_hook')

def call_scan_chunked(tmp): use_form(scan_chunked)

def call_vectors(tmp):
    vectors.kernel_source()
    vectors.signal(vectors.channel_last(1, 2, 3))

def call_scan_cpu(tmp):
    scan_cpu.block_size(384, 2, 4)
    if build.compilers(): use_form(scan_cpu), scan_cpu.library()
    x,w = torch.rand(2, 3, 4),torch.rand(5, 4)
    product_cpu.product_calls(x, w, torch.rand(5), torch.rand(2, 3, 5))
    product_cpu.product_calls(torch.rand(2, 2, 3, 2), w)
    product_cpu.linear(x, w, torch.rand(5))
    product_cpu.linear_into(x[0], w, None, torch.rand(3, 5))
    if build.compilers() and scan_cpu.library().vector_width() == 16: product_cpu.tiled(x, w)

def use_form(form):
    "The four functions of a plugged-in form, called as `scan` calls them."
    assert not form.why_not('cpu', torch.float32, 6, 9, 4, 2)
    form.why_not('cuda', torch.float64, 6, 9, 4, 2)
    d = ssm.Direction(*(torch.rand(s) for s in ((1,6,9), (1,6,9), (6,4), (1,2,4,9), (1,2,4,9), (6,), (6,))))
    z,h0 = torch.rand(1, 6, 9),torch.rand(2, 1, 6, 4)
    form.new_saved(z, 4, 2, True)
    y,_,saved = form.scan_forward([d, d], z, h0, True, True)
    form.scan_backward(y, None, [d, d], z, h0, True, saved)

def call_block_ops(tmp):
    for kernel in (True, False):
        block_ops.check_conv(lambda *a, kernel=kernel: block_ops.bi_conv(*a, kernel=kernel))
        block_ops.check_add_norm(lambda *a, kernel=kernel: block_ops.add_norm(*a, kernel=kernel))
    block_ops.bi_conv(torch.rand(1, 3, 5), torch.rand(3, 4), None)
    block_ops.conv_loop(torch.rand(1, 3, 5), torch.rand(3, 4), reverse=True)
    block_cpu.workspace('under_hook', 2, 3)
    block_cpu.free_workspace()

def call_bmamba(tmp):
    x = torch.randn(2, 5, 8)
    bmamba.check_block(bmamba.Mamba)
    for bimamba in (True, False):
        m = bmamba.Mamba(8, expand=1.5, dt_rank=2, bimamba=bimamba, bias=True)
        m.deltas(x)
        for norm in (bmamba.RMSNorm(8), bmamba.LayerNorm(8)):
            block = bmamba.Block(m, norm, drop_path=.5, checkpointed=True)
            block(*block(x))[0].sum().backward()
            block.double()(x.double())
            with torch.autocast('cpu', torch.bfloat16): block.float()(x)
    bmamba.hearing(lambda o: o*2, x[:1])

def call_gpu_forms(tmp):
    "What can run without a GPU; the stock kernels are absent, and their forms are called up to the point that shows it."
    from videomamba_nb import block_triton, conv_cuda, norm_triton, scan_cuda
    x,w,t,v = torch.ones(1, 4, 5),torch.ones(4, 3),torch.ones(1, 5, 4),torch.ones(4)
    block_triton.bi_conv_torch(x, w, v, w, v), block_triton.bi_conv_torch(x, w)
    norm_triton.add_norm_torch(t, None, v), norm_triton.why_not('cpu', torch.float32)
    scan_cuda.why_not('cpu', torch.float32, 4, 5, 2, 1), conv_cuda.conv_why_not('cpu', torch.float32)
    scan_cuda.even_length(5), scan_cuda.new_saved(x, 2, 1, True)
    d = ssm.Direction(x, x, -torch.ones(4, 2), torch.ones(1, 1, 2, 5), torch.ones(1, 1, 2, 5))
    for f,args in ((block_triton.bi_conv_forward, (x, w, v, w, v)), (block_triton.bi_conv_backward, (x, x, x, w, v, w, v)),
                   (norm_triton.add_norm_forward, (t, t, v)), (norm_triton.add_norm_backward, (t, t, t, v, t[...,0])),
                   (conv_cuda.bi_conv_forward, (x, w)), (conv_cuda.bi_conv_backward, (x, None, x, w)),
                   (scan_cuda.scan_forward, ([d], x, None, True, True)),
                   (scan_cuda.scan_backward, (x, None, [d], x, None, True, scan_cuda.new_saved(x, 2, 1, True)))):
        with suppress(ValueError, AttributeError): f(*args)

def call_scan_order(tmp):
    for name in scan_order.list_orders():
        order, = scan_order.permutations(name, 2, 3, 4)[:1]
        scan_order.reorder(torch.randn(2, 25, 3), scan_order.inverse(order))
        scan_order.neighbour_table(name, 2, 3, 4), scan_order.schedule(name, 3), scan_order.check_order(name)
    scan_order.permutations(scan_order.temporal_first, 2, 3, 4), scan_order.schedule(scan_order.snake, 2)
    scan_order.check_order(scan_order.spatial_first)
    scan_order.share_left(torch.ones(2, 3).long(), .1, 2.)
    scan_order.register_order('mine', scan_order.snake, scan_order.morton, layer=lambda i, depth: ((0, 1),))
    del scan_order.SCAN_ORDERS['mine']

def call_reading(tmp):
    x = torch.randn(2, 25, 8)
    mixers = [bmamba.Mamba(8) for _ in range(3)]
    for name in (*scan_order.list_orders(), ['snake', scan_order.hilbert, 'spatiotemporal_v1']):
        read = reading.Reading(name, 3, 2, 3, 4)
        h,r = x,None
        for i,m in enumerate(mixers):
            h,r = read.enter(i, h, r)
            h,r = bmamba.Block(m, bmamba.RMSNorm(8))(h, r, read.read(i))
            read.maps_home(i, [torch.randn(2, 3, 25) for _ in read.passes[i]])
        read.leave(h)
    for split in read.split.values(): split.deltas(mixers[0], x)

def call_adapt(tmp):
    w = torch.randn(2, 3, 4, 4)
    for center in (True, False): adapt.deflate(adapt.inflate(w, 2, center))
    adapt.square(9), adapt.resize_temporal(torch.randn(1, 4, 3), 6)
    adapt.resize_pos_embed(torch.randn(1, 7, 3), 4, (2, 3))
    adapt.check_resize(adapt.resize_pos_embed)

def call_model(tmp):
    clip,picture = torch.randn(2, 3, 2, 8, 8),torch.randn(2, 3, 8, 8)
    for kw in (SMALL, SMALL | dict(scan_order='temporal_first', rms_norm=False, use_checkpoint=True, checkpoint_num=1),
               SMALL | dict(num_classes=0, img_size=(8, 8), ssm_cfg=dict(d_state=4), scan_order=scan_order.temporal_first),
               SMALL | dict(scan_order=['spatiotemporal_v1', 'cross_scan'])):
        m = model.VideoMamba(**kw)
        m(clip), model.delta_maps(m, clip), m.no_weight_decay()
        m.double()(clip.double())
    m = model.VideoMamba(**SMALL | dict(num_frames=None, stride=2))
    m(picture), model.delta_maps(m, picture)
    model.check_backbone(model.VideoMamba)
    for name in model.list_models(): model.create_model(name, depth=1, img_size=32, num_frames=1, num_classes=2)
    weights.save_model(m, tmp/'m.safetensors', classes=['a'])
    model.load_model(str(tmp/'m.safetensors'))
    model.VideoMamba(**SMALL).resize(num_frames=4, img_size=(8, 12))
    model.VideoMamba(**SMALL | dict(num_frames=None)).resize(img_size=12)

def call_weights_and_pretrained(tmp):
    m = model.VideoMamba(**SMALL)
    for path in (tmp/'m.pth', str(tmp/'n.pth')): weights.save_official(m, path)
    repr(weights.load_weights(model.VideoMamba(**SMALL), path, head='drop'))
    weights.load_weights(model.VideoMamba(**SMALL | dict(num_frames=4, img_size=12)), m.state_dict())
    weights.check_loader(weights.load_weights, model.VideoMamba)
    pretrained.locate(path), pretrained.arguments(path)
    with suppress(ValueError): pretrained.check_promise(zoo.list_weights()[0], pretrained.arguments(tmp/'m.pth')[2])
    m.classes = ['a', 'b', 'c']
    m.save_pretrained(tmp/'folder')
    model.VideoMamba.from_pretrained(tmp/'folder', num_frames=4)
    with suppress(OSError):
        model.VideoMamba.from_pretrained('videomamba_t16_in1k_res224', cache_dir=tmp, local_files_only=True)

def call_zoo(tmp):
    row = zoo.find_weights('t16_k400_f8_res224')
    row.file, row.urls, row.protocol, row.config()
    zoo.find_weights(Path(row.file)).config(), zoo.find_weights(row), zoo.find_weights('t16_in1k_res224').protocol
    table = zoo.list_weights('k400', ('tiny', 'small'), 8, [224], 'in1k', 'video', top1=70)
    table.names, table[:1], repr(table), table._repr_html_()
    (tmp/'mine.pth').touch()
    zoo.fetch_weights(tmp/'mine.pth'), zoo.forget_weights(str(tmp/'mine.pth')), zoo.forget_weights(row.name, tmp)
    with suppress(OSError): zoo.fetch_weights(row.name, cache_dir=tmp, local_files_only=True, revision='main')
    zoo.label_names('coin'), zoo.label_names('k400'), zoo.label_names('in1k', cache_dir=str(tmp), local_files_only=True)

def call_flops(tmp):
    m = model.VideoMamba(**SMALL)
    for x in (None, (2, *m.input_shape), list((1, *m.input_shape)), torch.zeros(1, *m.input_shape)):
        for convention in (*flops.PRICES, dict(matmul=.5)):
            cost = flops.flops(m, x, convention)
            cost.total, cost.giga, repr(cost+2*cost), cost._repr_html_(), cost.table()
        flops.work(m, x)
    flops.count_parameters(torch.nn.Linear(2, 3)), flops.count_parameters(m)
    repr(flops.cost_table(['videomamba_tiny'], [(1, 32), (None, 32)]))

def call_triton(tmp):
    os.environ['TRITON_INTERPRET'] = '1'
    triton_kernels.kernel(lambda: 0), triton_kernels.kernel(num_warps=1)
    scan_triton.time_chunks(72, 999), scan_triton.channels_per_program(999, 16)
    scan_triton.why_not('cpu', torch.float32, 32, 3, 16, 1), scan_triton.why_not('cuda', torch.float64, 32, 3, 16, 1)
    for kw in (dict(m=1, full=False), dict(r=2, dtype=torch.bfloat16)):
        args = triton_kernels.rand_directions(e=6, l=3, n=2, **kw)
        last = triton_kernels.loop_directions([d._replace(dt_weight=None, delta=d.u) for d in args[0]], *args[1:])[1]
        scan_triton.new_saved(args[0][0].u, 2, len(args[0]), args[1] is not None)
        if triton_kernels.triton is None: continue
        y,_,saved = scan_triton.scan_forward(*args, True)
        scan_triton.scan_backward(y, last, *args, saved)
        scan_triton_bwd.backward(y, None, *args, saved, atomic=True)
    del os.environ['TRITON_INTERPRET']

class Clips:
    "A data set of six random clips."
    classes = ['a', 'b', 'c']
    def __len__(self): return 6
    def __getitem__(self, i): return torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(i)), i % 3

def call_torch_file(tmp):
    torch.save({'w': torch.ones(3), 'args': [1, 'a', None]}, tmp/'w.pth')
    with torch_file.explain(tmp/'w.pth'), open(tmp/'w.pth', 'rb') as f: torch_file.read_torch(f)
    with torch_file.explain('b'), suppress(torch_file.WeightsError): raise torch_file.damaged('it is')
    torch_file.walk_pickle(io.BytesIO(b'\x80\x02K\x01.'), lambda pid: range(3))

def call_checkpoint(tmp):
    for frames in (2, None):
        m = model.VideoMamba(**SMALL | dict(num_frames=frames))
        torch.save({'model': m.state_dict(), 'epoch': 1}, tmp/'c.pth')
        state,_ = checkpoint.unwrap(checkpoint.read_file(str(tmp/'c.pth'))[0])
        info = checkpoint.describe_state(state)
        repr(info), checkpoint.config_of(info)
    checkpoint.unwrap(m.state_dict(), 'auto'), checkpoint.describe_state({})
    weights.save_model(m, tmp/'c.safetensors')
    checkpoint.read_file(tmp/'c.safetensors')

def call_train(tmp):
    recipe.mixup(torch.randn(2, 3), recipe.soft_targets(torch.tensor([0, 1]), 3, .1), .5)
    train.show_curve([dict(epoch=1, train_accuracy=.5, train_loss=1.)], 'loss')
    m = model.VideoMamba(**SMALL)
    config = recipe.TrainConfig(epochs=1, batch_size=3, mixup=.8, cutmix=1., smoothing=.1, clip_grad=1.)
    train.fit(m, Clips(), Clips(), config, folder=tmp/'run')
    train.fit(m, Clips(), Clips(), config, folder=str(tmp/'run'), device='cpu', show=False, meta=dict(a=1))
    train.fit(m, Clips(), config=recipe.TrainConfig(epochs=1, batch_size=3, amp='bf16'))
    for wrong in (recipe.TrainConfig(epochs=2), recipe.TrainConfig(epochs=1, lr=.5)):
        with suppress(ValueError): train.fit(m, Clips(), config=wrong, folder=tmp/'run')

def call_objective(tmp):
    m,x,y = model.VideoMamba(**SMALL, drop_path_rate=0.),torch.randn(3, 3, 2, 8, 8),torch.tensor([0, 1, 2])
    for asked in (objective.Classify(3), objective.Classify(3, .1, .8, 1.)): objective.check_objective(asked, m, x, y)
    objective.check_objective(objective.Regress(), model.VideoMamba(**SMALL | dict(num_classes=1), drop_path_rate=0.), x, y)
    objective.Classify(3).check([0], ['a']), objective.Regress().check([.5], ['a'])
    with suppress(NotImplementedError): objective.Objective()(m, x, y)
    objective.Objective().check([0], ['a'])

def call_distill(tmp):
    teacher,x,y = model.VideoMamba(**SMALL),torch.randn(3, 3, 2, 8, 8),torch.tensor([0, 1, 2])
    m = distill.DistillVideoMamba(**SMALL | dict(embed_dim=12), teacher_embed_dim=8, drop_path_rate=0.)
    for asked in (distill.Distill(teacher, 3, .1, .8, 1., weight=.5, until=1), distill.Logits(teacher, 3, tau=2.)):
        objective.check_objective(asked, m, x, y)
        repr(asked), asked.check([0], ['a']), asked.set_epoch(1)
    distill.Teacher(m)(x), distill.student_of(m)(x)
    distill.DistillVideoMamba(**SMALL | dict(num_frames=None), model_type='teacher')(x[:,:,0])
    distill.create_distill('videomamba_middle_distill', depth=1, img_size=32, num_classes=2)
    distill.check_student(distill.DistillVideoMamba)
    distill.check_taught(distill.Distill, lambda ce, mine, his: ce+distill.token_gap(mine[1], his[1]))
    distill.soft_gap(y[None].float(), y[None].float(), 2.), distill.unit(x)
def call_masks(tmp):
    rng,a = np.random.default_rng(0),torch.rand(2, 2, 3, 4)
    for kind in masks.MASKS:
        mask = masks.draw_mask(kind, (2, 3, 4), .5, rng, a, 2)
        masks.draw_mask(kind, (3, 4), .5, rng, a[:,:1].flatten(2), 2), masks.mask_counts(kind, (3, 4), .5)
        masks.check_mask(masks.draw_mask, kind)
    masks.take(torch.randn(2, 25, 3), masks.visible_tokens(mask, 2, (2, 3, 4)))

def call_masked(tmp):
    size,x = {k: v for k,v in SMALL.items() if k != 'num_classes'},torch.randn(2, 3, 2, 8, 8)
    mask = masks.draw_mask('tube', (2, 2, 2), .5, np.random.default_rng(0), batch=2)
    for kw in (dict(), dict(scan_order='temporal_first', clip_return_layer=2, clip_norm_type='none', rms_norm=False),
               dict(align_pre_last=True, clip_decoder_embed_dim=8, clip_student_return_interval=1.5)):
        m = masked.MaskedVideoMamba(**size, clip_output_dim=5, **kw)
        out = m.double()(x.double(), mask)
        m.float()(x, mask), m.no_weight_decay(), masked.classifier_of(m, 3, num_frames=4, drop_path_rate=.1)
    m.set_scan_order('hilbert'), masked.read_visible(m.reading, torch.zeros(2, 1, dtype=torch.int64))
    m.resize(num_frames=4, img_size=(8, 12)), masked.tap_layers(3, 2, 1.5), masked.sinusoid(3, 5)
    for kind in ('l2', 'mse', 'smooth_l1'): masked.alignment(out, out, kind), masked.alignment(out, out[0], kind)

def call_video_encoder(tmp):
    size,x = {k: v for k,v in SMALL.items() if k != 'num_classes'},torch.randn(2, 3, 2, 8, 8)
    mask = masks.draw_mask('tube', (2, 2, 2), .5, np.random.default_rng(0), batch=2)
    for kw in (dict(), dict(add_pool_norm=False, align_pre_last=True, scan_order='temporal_first'),
               dict(pool_type='cls_cat_avg', pool_by='frame', kernel_size=2, clip_return_layer=2)):
        m = video_encoder.VideoEncoder(**size, clip_output_dim=5, **kw)
        m(x, keep_temporal=True), m(x[:,:,0], use_image=True), m(x[:,:,:1], mask[:,:5], use_image=True)
    m = video_encoder.VideoEncoder(**size).double()
    m(x.double(), mask, keep_temporal=True), m.forward_features(x.double(), mask), m.no_weight_decay()
    m.resize(num_frames=4, img_size=(8, 12)), video_encoder.pool_tokens(x[:,:,0,0], 'avg')

def call_pair_losses(tmp):
    class Words:
        pad,cls,sep,mask = range(4)
        def __len__(self): return 9
    idx,rng,g = torch.arange(3),np.random.default_rng(0),torch.Generator().manual_seed(0)
    pair_losses.duplicate_targets(idx[:2], idx)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        video,text = (torch.randn(*o, generator=g).to(dtype) for o in ((3, 2, 4), (3, 4)))
        sim = pair_losses.frame_similarity(video, text)
        pair_losses.vtc_loss(sim, idx), pair_losses.vtc_rows(sim[:2], idx[:2], idx, 'sigmoid', torch.tensor(-1.))
        pair_losses.draw_negatives(sim, idx, rng), pair_losses.scale_grad(sim, .5)
        pair_losses.vtm_loss(torch.zeros(6, 2, dtype=dtype), torch.ones(6).bool())
    pair_losses.clamp_temp(torch.nn.Parameter(torch.tensor(2.)))
    ids,labels = pair_losses.mask_words(torch.full((2, 5), 7), torch.ones(2, 5).bool(), Words(), rng, .9, True)
    pair_losses.mlm_loss(torch.zeros(2, 5, 9), labels)
    pair_losses.check_similarity(pair_losses.frame_similarity), pair_losses.check_vtc(pair_losses.vtc_loss)
    pair_losses.check_negatives(pair_losses.draw_negatives), pair_losses.check_vtm(pair_losses.vtm_loss)
    pair_losses.check_mask_words(pair_losses.mask_words, Words()), pair_losses.check_mlm(pair_losses.mlm_loss)

def call_videotext(tmp):
    texts,idx,x = ['a red dot', 'a blue dot falls', 'it rains'],torch.tensor([0, 1, 0]),torch.randn(3, 3, 2, 8, 8)
    toy = videotext.CONFIGS['toy'].change(vision=dict(depth=1, embed_dim=16, num_frames=2, img_size=8, patch_size=4),
                                          text=dict(hidden_size=16, heads=2, intermediate_size=16), width=6)
    model,rng = videotext.VideoText(toy, words.Words.learn(texts)).eval(),np.random.default_rng(0)
    mask = masks.draw_mask('tube', (2, 2, 2), .5, rng, batch=3)
    for target in (None, torch.randn(3, 9, 32), torch.randn(1, 3, 9, 32)):
        model.train()(x, texts, idx, mask, rng, target, hard=False)
    model.losses(x[:,:,0], model.tokenise(texts), idx, None, rng, None, dict(vtc=1, mlm=.5), True, lambda o: o)
    video,text = model.encode_video(x),model.encode_text(texts)
    model.match(video.pick([0, 2]), text.pick(torch.tensor([0, 2]))), model.no_weight_decay()
    model.align(model.encode_video(x, mask, False), mask, torch.randn(3, 9, 32)), model.contrast(video, text, idx)
    model.match_logits(video, text), model.tell_apart(video, text, idx, rng)
    model.fill_in(video, model.tokenise(texts), rng)
    towers.check_pair_model(model.eval(), x, texts)
    model.words = model.words
    towers.Towers(toy, model.words).encode_text(texts)
    videotext.save_videotext(model, tmp/'pairs.safetensors', note='a')
    videotext.load_videotext(tmp/'pairs.safetensors'), videotext.load_videotext(str(tmp/'pairs.safetensors'))

def call_pairs_at_scale(tmp):
    cached.check_cached(cached.cached_gradient)
    parallel.check_gather(parallel.gather_rows)
    texts = ['a red dot', 'a blue dot falls', 'A red dot.', 'it rains']
    toy = videotext.CONFIGS['toy'].change(vision=dict(depth=1, embed_dim=16, num_frames=2, img_size=8, patch_size=4),
                                          text=dict(hidden_size=16, heads=2, intermediate_size=16), width=6)
    model = videotext.VideoText(toy, words.Words.learn(texts))
    data = [(torch.randn(3, 2, 8, 8), i % 4) for i in range(8)]
    pair_train.wide_start(model), pair_train.same_words(texts)
    pair_train.standout(torch.randn(2, 3, 2, 8, 8), (2, 2, 2))
    pair_train.wide_start(model)
    pair_train.same_words(texts), pair_train.standout(torch.randn(2, 3, 2, 8, 8), (2, 2, 2))
    stages = scale.pair_stages('5M', teacher=False, batch_size=4, accumulate=2, epochs=1, amp=None)
    pair_train.fit_stages(model, data, texts, data, stages, tmp/'stages', False, 'cpu')
    ask = pair_train.Pairs(texts, model.words, mask='tube', grid=(2, 2, 2))
    ask.check([0], ['a']), ask.set_epoch(1), ask.absent(model, torch.device('cpu')), repr(ask), ask.together, ask.meet
    scale.find_pair_recipe('5M-masked').total, scale.list_pair_recipes('5M').names, scale.pair_config('5M-masked', True)
    rows = [(path, ('a one', 'a two'), i) for i,(path,_) in enumerate(digits.moving_digits('valid', tmp, n=3).samples)]
    shards.write_shards(rows, tmp/'shards', 2), shards.list_shards(str(tmp/'shards'))
    stream = shards.Shards(tmp/'shards', 2, 2, 8, workers=1)
    stream.set_epoch(0), stream.load_state(stream.state()), stream.plan()
    run = step.Run(model, recipe.TrainConfig(), shard_train.StreamPairs(model.words), torch.device('cpu'))
    shard_train.stream_epoch(run, stream, 0)
    run.objective.check([0], ['a'])

def call_layout_and_released(tmp):
    config = towers.VideoTextConfig(
        {k: v for k,v in SMALL.items() if k != 'num_classes'} | dict(clip_output_dim=6, align_pre_last=True),
        dict(vocab_size=20, hidden_size=8, layers=2, fusion_layer=1, heads=2, intermediate_size=8, positions=6), 4)
    names = layout.official_keys(config, (8, 1, 4, 4, 6))
    eyes = {k.removeprefix('clip_teacher.'): torch.randn(v) for k,v in names.items() if 'teacher' in k}
    small = videotext.VideoText(config)
    layout.official_keys(config), layout.teacher_of(eyes), released.official_state(small, eyes)
    for dtype in (torch.float32, torch.bfloat16): released.save_released(small, tmp/'official.pth', eyes, dtype)
    parts,tower = released.read_released(tmp/'official.pth'),layout.teacher_tower(eyes, 2)
    released.load_released(small, parts, tower), released.load_released(small, tmp/'official.pth')
    released.released_config(parts, 2), released.open_released(str(tmp/'official.pth'), heads=2, num_frames=4)
    released.load_tower(small.vision_encoder, model.VideoMamba(**SMALL).state_dict())

def call_teacher(tmp):
    import transformers
    images,_ = teacher.digit_frames(4, 'valid')
    clips,mine = images.view(2, 2, 3, 32, 32).transpose(1, 2),dict(SMALL, img_size=32, patch_size=16, num_frames=None)
    config = transformers.CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
                                           image_size=32, patch_size=16, projection_dim=8)
    tower = transformers.CLIPVisionModelWithProjection(config)
    tower.save_pretrained(tmp/'tower')
    ours = teacher.FrameTeacher(model.VideoMamba(**mine))
    for t in (ours, teacher.ClipTeacher(tower), teacher.ClipTeacher(tmp/'tower', 1, 48)):
        teacher.check_teacher(t, clips), t.look(images), t(images)
    teacher.clip_tower(str(tmp/'tower')), repr(t)
    with suppress(NotImplementedError): teacher.Teacher().look(images)
    m = masked.MaskedVideoMamba(img_size=32, patch_size=16, depth=1, embed_dim=8, num_frames=2, clip_output_dim=8)
    asked = teacher.Align(ours, 'tube', .5, 'mse')
    objective.check_objective(asked, m, torch.cat([clips, clips]), torch.zeros(4))
    asked.masks(torch.ones(1, 2, 2, 2)), asked.masks(torch.ones(1, 2, 2, 2), np.random.default_rng(0))

def call_attention(tmp):
    x,mask,patches = torch.randn(2, 3, 8),torch.ones(2, 3).bool(),torch.randn(2, 5, 6)
    for f in (attention.attend, attention.attend_loop): attention.check_attention(f)
    ids,tables = torch.zeros(2, 3).long(),attention.WordTables(4, 3, 8, .1)
    tables(ids), attention.embed_by_hand(tables.state_dict(), ids)
    for args,layer in (((), attention.TextLayer(8, 2, 4, .1)), ((patches, None), attention.TextLayer(8, 2, 4, .1, 6))):
        layer.half()(*(o.half() if torch.is_tensor(o) and o.is_floating_point() else o for o in (x, mask, *args)))
        attention.layer_by_hand(layer.float().state_dict(), 2, x, mask, *args)
    layer(x, mask, patches, mask.new_zeros(2, 5))

def call_words(tmp):
    w = words.Words.learn(('a dog', 'a cat runs'), 6, size=80)
    words.check_words(w, ['a dog', 'a']), w(('a dog',), 5, cut='error')
    w('a dog').to('cpu').pick([0]).pick(torch.tensor([0]))
    w.pieces('doggy'), w.unknown('doggy'), w.decode([2, 3]), w.decode(w('a').ids[0]), words.clean_caption('A!')
    w.tokenizer.save(str(tmp/'tokenizer.json'))
    words.Words.load(tmp), words.Words.load(str(tmp/'tokenizer.json'), 8), words.Words.from_text(w.text)
    words.find_file(tmp, ('tokenizer.json',))

def call_text_encoder(tmp):
    text_encoder.check_text_encoder(text_encoder.TextEncoder)
    m = text_encoder.TextEncoder(9, 8, 2, 1, 2, 12, 5, 6)
    ids,mask,patches = torch.zeros(2, 3).long(),torch.ones(2, 3).bool(),torch.randn(2, 5, 6)
    m.predict_words(m.fuse(m.encode(ids, mask), mask, patches, torch.ones(2, 5).bool())), m.read(ids, mask, patches)
    m.predict_words(torch.randn(8)), text_encoder.read_by_hand(m.state_dict(), 2, ids, mask, patches)
    text_encoder.load_bert(m, m.state_dict())
    torch.save(m.state_dict(), tmp/'bert.pth')
    text_encoder.load_bert(text_encoder.TextEncoder(9, 8, 2, 1, 2, 12, 5, 6, mlm=False), tmp/'bert.pth')

def call_saving(tmp):
    part,folder = torch.nn.Linear(1, 1),tmp/'saved'
    run = argparse.Namespace(config=recipe.TrainConfig(), history=[dict(train_loss=1.)], parts=lambda: dict(model=part))
    about = saving.about_run(part, [1], recipe.TrainConfig(), objective.Regress())
    for _ in range(2): saving.save_run(run, folder, about)
    saving.read_run(folder), saving.check_same(about, about, folder), saving.resume(run, folder, about)
    saving.is_best(run.history, objective.Regress())

def call_parallel(tmp):
    here,device = parallel.place(),torch.device('cpu')
    parallel.Place(1, 2).first, parallel.own_device('cpu', here), parallel.join(device)
    parallel.pair_split(5, 2), parallel.shard(3), parallel.add_up(torch.ones(2)), parallel.collect(1), parallel.from_first(1)
    parallel.add_gradients(torch.nn.Linear(1, 1)), parallel.before_fork()

def call_loading(tmp):
    for batch in loading.read_batches(Clips(), [[0], [1]]): len(batch)
    with suppress(ValueError): loading.report_unread({'a': 'b'}, 1, 1, .1, 'here')

def call_step(tmp):
    m,x,y = model.VideoMamba(**SMALL),torch.randn(4, 3, 2, 8, 8),torch.tensor([0, 1, 2, 0])
    run = step.Run(m, recipe.TrainConfig(accumulate=2, ema=.9, layer_decay=.5), objective.Classify(3), torch.device('cpu'))
    step.autocast(run), step.means(run, 'train', torch.ones(3)), run.judged, list(step.pieces(run, x, y, (0, 0)))
    step.gradient(run, x, y, (0, 0)), step.clip_gradient(run), step.train_step(run, x, y, .1, (0, 0))
    recipe.depth_scale('head.weight', 2, .5)
def call_published(tmp):
    r = published.find_recipe('k400-tiny-f16')
    published.list_recipes(data='k400', model=['tiny', 'small'], frames=16).names, repr(r), r.total
    table = published.list_recipes(data='lvu')
    repr(table), table._repr_html_()
    published.learning_rates(r, 16), published.learning_rates('in1k-tiny'), published.steps(r, 1000, 16, 1)
    published.train_config(r, 4, 0, seed=1), published.model_args('lvu-class', 4)

def call_rerun(tmp):
    clip,folder = call_video(tmp),tmp/'rerun'
    folder.mkdir()
    for split in ('train', 'val'): (folder/f'{split}.csv').write_text(f'{clip},0')
    flat = dict(img_size=8, patch_size=4, depth=1, embed_dim=8)
    job = rerun.rerun('k400-tiny-f8', folder, init=None, batch_size=1, sizes=flat | dict(num_frames=2), epochs=1, amp=None)
    job.fit(device='cpu', show=False)
    rerun.recipe_augment('ssv2-tiny-f8'), rerun.recipe_data('k400-tiny-f8', folder, size=8, num_frames=2)
    rerun.recipe_valid('k400-tiny-f8', folder, size=8, num_frames=2)
    rerun.recipe_model('k400-tiny-f8', 3, None, **flat), rerun.recipe_teacher('k400-tiny-f8')
    rerun.recipe_objective('k400-tiny-f8', 3, config=recipe.TrainConfig())

def call_training(tmp):
    listed = tmp/'list.csv'
    listed.write_text(f'{call_video(tmp)},0')
    small = '--size 8 --patch 4 --depth 1 --dim 8 --frames 2 --epochs 1 --batch-size 1 --amp no'.split()
    parse = usage.build_parser().parse_args
    training.train(parse(['train', str(listed), '--out', str(tmp/'own'), *small]))
    args = parse(['train', '--recipe', 'k400-tiny-f8', '--data', str(tmp), '--init', 'none', *small])
    training.typed(args, {}), training.sizes(args), training.named(None, [0, 1]), training.recipes()
    with suppress(OSError): training.train_recipe(args)
    training.train_list(parse(['train', str(listed), '--out', str(tmp/'own'), *small]))

def call_evaluate(tmp):
    probs,labels = torch.rand(4, 3),torch.tensor([0, 1, 2, 0])
    evaluate.topk_accuracy(probs, labels, 2), evaluate.confusion(labels, labels, 3)
    evaluate.merge_views(['a', 'b', 'a', 'b'], probs)
    m,path = model.VideoMamba(**SMALL),call_video(tmp)
    ds = data.VideoDataset([(str(path), 1)], 2, 8, mode='test', num_clips=2, num_crops=3)
    found = evaluate.evaluate(m, ds, batch_size=4)
    repr(found), found.top1, found.top5, found.confusion()
    evaluate.evaluate(m, ds, True), evaluate.view_keys(ds, True), evaluate.base_name(path)
    evaluate.merged_views(ds, *evaluate.view_scores(m, ds), official=True)
    evaluate.file_probs(m, path), evaluate.file_views(m, str(path), clips=1), evaluate.shipped_weights()
    evaluate.look(m, torch.randn(2, 3, 2, 8, 8)), evaluate.show_look(m, torch.randn(1, 3, 2, 8, 8))
    plt.close('all')

def call_protocol(tmp):
    protocol.possible_accuracies(7), protocol.is_possible(50, 7), protocol.explain_counts([50.], (7, 8), 2)
    m,path = model.VideoMamba(**SMALL | dict(num_classes=1)),call_video(tmp)
    protocol.check_grouping(evaluate.view_keys)
    found = protocol.evaluate_regression(m, protocol.protocol_data('ssv2', [(str(path), 1)], m), batch_size=4)
    repr(found), found.mse, protocol.find_protocol('k400')

def call_features(tmp):
    m,path,x = model.VideoMamba(**SMALL),call_video(tmp),torch.randn(2, 3, 2, 8, 8)
    for what in features.WHAT: features.pool_tokens(m.forward_features(x), m.grid, what)
    features.feature_map(m, x), features.windows(9, 4, 2), features.fingerprint(m), features.view_size(m)
    features.to_view(np.zeros((2, 8, 10, 3), dtype=np.uint8), 8)
    features.to_view(np.zeros((1, 8, 10, 3), dtype=np.uint8), 8, True, 1, 3)
    list(features.FileViews(m, [path], .5, .25, 'seconds')), features.feature_file(tmp, path)
    f = inference.extract_features(m, [path], 'map', tmp/'features', 2, 1, device='cpu', show=False)
    f.save(tmp/'copy'), repr(f), f.x, f.part(0), features.load_features(str(tmp/'copy'))
    inference.extract_features(m, (str(path),))

def call_inference(tmp):
    m,path,frames = model.VideoMamba(**SMALL),call_video(tmp),np.zeros((4, 8, 10, 3), dtype=np.uint8)
    still = model.VideoMamba(**SMALL | dict(num_frames=None))
    for o in (path, str(path), frames, frames[0], torch.tensor(frames), [path, frames], torch.randn(2, 3, 2, 8, 8)):
        repr(inference.predict(m, o, 2, ['a', 'b', 'c'])), inference.class_names(m)
    inference.predict(still, path, clips=2), inference.predict(still, torch.randn(3, 8, 8), labels=('a', 'b', 'c'))
    plt.imsave(tmp/'a.png', frames[0]), inference.read_picture(tmp/'a.png'), inference.predict(m, tmp/'a.png')
    inference.read_source(frames, lambda n: [0, n-1]), inference.source_views(m, path, 2, 3)
    y = torch.arange(6) % 2
    inference.linear_probe(torch.randn(6, 2, 3), y, torch.randn(6, 2, 3), y)

def call_pieces(tmp):
    m,path,x = model.VideoMamba(**SMALL),call_video(tmp),torch.randn(3, 5, 8, 8)
    for args in ((path, 8), (str(path), 8, 5), (path, 8, 1, 3)):
        n,found = pieces.video_pieces(*args)
        assert len(list(found)) == n
    for source in (path, str(path), x, [x, x]): list(pieces.group_frames(pieces.frame_source(m, source)[1], 2))
    pieces.frame_source(m, path, 2), pieces.frame_source(m, path, frames=2), pieces.check_space(tmp, 1)
    f = pieces.TokenFile(str(tmp/'tokens'), 4, torch.float64)
    f.append(torch.zeros(3, 4)), f.write(torch.tensor([2, 0]), f.read(slice(0, 2))), f.read(torch.tensor([1]))

def call_streaming(tmp):
    m,path,x = model.VideoMamba(**SMALL),call_video(tmp),torch.randn(3, 5, 8, 8)
    for what in streaming.STREAMED: streaming.stream_features(m, x, what, 3, tmp, show=False)
    streaming.stream_features(m, str(path), 'tokens', out=tmp/'all.npy', every=3)
    streaming.stream_features(m, (x, x), positions=torch.zeros(10, 8)), streaming.disk_bytes(m, 5)
    streaming.stream_probs(m, path, frames=4, folder=str(tmp))
    run = lambda m, x, chunk: streaming.stream_features(m, x, 'tokens', chunk, show=False)
    streaming.check_stream(run, ['two paths', 'two frames a patch'])
    carry = streaming.step_direction(m.layers[0].mixer, torch.randn(1, 2, 8))[1]
    streaming.step_direction(m.layers[0].mixer, torch.randn(1, 3, 8), carry, '_b')
def call_saliency(tmp):
    saliency.check_attention(saliency.scan_matrix), saliency.check_attention(saliency.scan_matrix_loop)
    args = {k: v for k,v in contract.rand_scan('full').items() if k != 'z'}
    saliency.scan_row(args, 3, [0, 2]), saliency.scan_matrix(args, torch.tensor([1]), 4)
    for order in ('snake', 'spatiotemporal_v1'):
        m,x = model.VideoMamba(**SMALL, scan_order=order).eval(),torch.randn(2, 3, 2, 8, 8)
        inputs = saliency.layer_inputs(m, x)[0][0]
        saliency.mixer_ways(m.layers[0].mixer, *inputs), saliency.hidden_attention(m.layers[0].mixer, *inputs)
        saliency.hidden_attention(m.layers[0].mixer, *inputs, channels=[3, 1], chunk=1)
        saliency.attention_maps(m, x), saliency.rollout(m, x), saliency.receptive_field(m, x, (1, 0, 1), 2)
    still = model.VideoMamba(**SMALL | dict(num_frames=None)).eval()
    saliency.attention_maps(still, x[:,:,0]), saliency.rollout(still, x[:,:,0])
    saliency.receptive_field(still, x[:,:,0]), saliency.receptive_field(still, x[:,:,0], (0, 1))

def call_sensitivity(tmp):
    m,x,y = model.VideoMamba(**SMALL).eval(),torch.randn(4, 3, 2, 8, 8),torch.tensor([0, 1, 2, 0])
    sensitivity.change_frames(x, 'shuffled', 1, 2), sensitivity.change_frames(x, lambda t, rng: rng.permutation(t))
    clips = torch.utils.data.TensorDataset(x, y)
    len(sensitivity.ChangedClips(clips, 'reversed')), sensitivity.sensitivity(m, clips, 'half black', (0,), device='cpu')
    sensitivity.frame_sensitivity(m, clips, seeds=range(1)), sensitivity.frame_sensitivity(m, clips, dict(a='reversed'))
    still = model.VideoMamba(**SMALL | dict(num_frames=None)).eval()
    for o,v in ((m, x), (still, x[:,:,0])):
        maps = sensitivity.gradient_maps(o, v)
        sensitivity.gradient_maps(o, v, y), sensitivity.occlusion_maps(o, v), sensitivity.cover(o, v, maps > 0)
        sensitivity.occlusion_maps(o, v, y, torch.zeros(1)), sensitivity.removal_curve(o, v, y, maps, True, 2)
        sensitivity.removal_curve(o, v, y, maps, fill=torch.zeros_like(v[:1]))
def call_long_video(tmp):
    long_video.check_long(lambda **kw: long_video.JointTransformer(heads=4, **kw))
    m = model.VideoMamba(**SMALL | dict(num_frames=8))
    joint,d = long_video.joint_like(m, heads=2),events.long_events('valid', 16, size=8, n=6, root=tmp)
    long_video.FlashWindows(d, 8)[4], joint.no_weight_decay(), long_video.lengthen(joint, 4)
    x,y = long_video.clip_features(joint, d)
    for kind in long_video.HEADS: long_video.fit_head(kind, (x, y), (x, y), steps=2)
    long_video.clip_head('gru', 2, 8)(x)

def call_ranking(tmp):
    m = ranking.ColorModel()
    v,s = m.encode_video(torch.stack([ranking.color_film(o) for o in ('red','blue')])),m.encode_text(['red','red blue'])
    m.match(v, s), ranking.check_ranks(ranking.ranks), ranking.dual_softmax(torch.rand(2, 3))
    found = ranking.score_retrieval(torch.eye(3, 2), torch.eye(3, 2, dtype=torch.bool), torch.eye(2, 3))
    found.official(), found.t2v.recall(1), found.t2v.median, found.v2t.mean, repr(found)
    ranking.report({'ours': found}, 'MSVD')

def call_retrieval(tmp):
    row = collections.namedtuple('Row', 'path captions')
    class Films(torch.utils.data.Dataset):
        rows = [row('0.mp4', ('red', 'all red')), row('1.mp4', ('green',))]
        def __getitem__(self, i): return ranking.color_film(self.rows[i].captions[0]), ''
        def __len__(self): return 2
    m,table = ranking.ColorModel(),retrieval.TableModel(torch.rand(2, 3))
    films.truth_of(films.films_of(Films()), paragraph=True), list(films.clip_batches(Films(), films.items_of(Films()), 2))
    e = retrieval.encode_all(m, Films(), device='cpu')
    retrieval.pick(e.videos, [1]), retrieval.dual_scores(e.videos.feature, e.sentences.feature, 2, 'max')
    retrieval.rerank(table, table.number(2), table.number(3), e.scores(), 1)
    retrieval.check_rerank(retrieval.rerank), retrieval.evaluate_retrieval(m, Films(), batch_size=1)

def call_zero_shot(tmp):
    row = collections.namedtuple('Row', 'path captions answer')
    class Films(torch.utils.data.Dataset):
        rows = [row('0.mp4', ('red then blue', 'green'), 0), row('1.mp4', ('green', 'red'), 1)]
        def __getitem__(self, i): return ranking.color_film(self.rows[i].captions[0]), ''
        def __len__(self): return 2
    m,x = ranking.ColorModel(),ranking.color_film('red')[None]
    v,s = m.encode_video(x),m.encode_text(['red'])
    share = zero_shot.reverse_test(m, Films(), 'match')
    share.value, share.interval, repr(share), zero_shot.wilson(1, 2), zero_shot.bootstrap([1, 0], draws=100)
    zero_shot.prompts(('a', 'b')), zero_shot.class_vectors(m, ['red']), zero_shot.own_temp(m, .1)
    zero_shot.PromptClassifier(m, ['red', 'blue'], ['{}'], .1)(x), zero_shot.reverse_captions('left')
    zero_shot.pair_scores(m, v, s), zero_shot.match_probs(m, v, s)
    zero_shot.choice_scores(m, v, ['red', 'blue'], temp=1.), zero_shot.choose(m, Films(), temp=1.)

def call_answers(tmp):
    seen,row = collections.namedtuple('Seen', 'tokens'),collections.namedtuple('Row', 'question answers')
    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words = words.Words.learn(['what is it', 'a cat', 'dog'])
            self.text_encoder = text_encoder.TextEncoder(len(self.words), 8, 2, 1, 2, 12, 16, 6, mlm=False)
        def encode_video(self, x): return seen(x)
    class Asked(torch.utils.data.Dataset):
        rows = [row('what is it', 'a cat'), row('what is it', ['dog', 'a cat'])]
        def __getitem__(self, i): return torch.zeros(3, 6), ''
        def __len__(self): return 2
    m,x,ask,told = answers.AnswerModel(Small(), 1).eval(),torch.randn(2, 3, 6),['what is it']*2,['dog', 'a cat']
    rows,(states,mask) = m.model.words(told),m.read(x, ask)
    answers.answer_likelihood(m.decoder(rows.ids, states, mask), rows), answers.first_words(m, states, mask, rows)
    answers.decode_by_hand(m.decoder.state_dict(), 2, rows.ids, states, mask), answers.answer_rows(('a', ['b']))
    answers.answer_loss(m, x, ask, told), answers.start_from_fusion(m.decoder, m.model.text_encoder)
    answers.check_decoder(answers.AnswerDecoder), answers.check_rank(answers.rank_answers, m, x, ask, told)
    repr(quiz.evaluate_answers(m, Asked(), told, k=1)), quiz.exact_match(told, told), quiz.soft_accuracy(told, [told]*2)

def call_explorer(tmp):
    path,frames = call_video(tmp),np.zeros((4, 8, 10, 3), dtype=np.uint8)
    explorer.page_curves(), explorer.page_orders(1, 2, 2, {'mine': scan_order.spatial_first}), explorer.order_lists(1, 2, 2)
    explorer.clip_frames(path, 4), explorer.clip_frames(frames), explorer.frame_sheet(frames)
    m = model.VideoMamba(**SMALL)
    explorer.model_steps(m, frames), explorer.explorer_html(path, model=m, other='temporal_first')
    explorer.save_explorer(tmp/'explorer.html', t=1, h=2, w=2)
    explorer.explore(t=1, h=2, w=2, widget=False)._repr_html_(), explorer.explore(t=1, h=2, w=2)

def call_export(tmp):
    m,(file,path) = model.VideoMamba(**SMALL | dict(depth=1)),(tmp/'a.onnx', tmp/'a.pt2')
    program = export.export_program(m, path, batch=1, note='a') # one clip: a free batch is a symbol, and no `int`
    export.check_export(export.load_program(str(path))[0].module(), m, batches=(1,))
    export.operators(export.standard_operators(program)), export.export_program(m, batch=1, portable=True)
    for case in ('full', 'groups'): export.selective_scan_blocks(**contract.rand_scan(case))
    repr(onnx_export.export_onnx(m, str(file), batch=1)), onnx_export.onnx_operators(file)
    onnx_export.load_onnx(file, threads=1)[0](torch.ones(1, *m.input_shape))

def call_lookup_and_commands(tmp):
    path,film = tmp/'w.pth',digits.unseen_clip(tmp/'film.mp4', 'up')
    weights.save_official(model.VideoMamba(**SMALL), path)
    for o in (path, str(path)): lookup.show_file(lookup.about_file(o)), lookup.megabytes(o)
    lookup.show_name(lookup.about_name('t16_k400_f8_res224')), lookup.look_up(str(path)), lookup.show_row('a', dict(b=1))
    o = commands.open_model(path, 4, 8, 'dense')
    commands.open_model(), commands.answer(o, film, 2, (1, 1), ['a', 'b', 'c']), commands.video_files([tmp])
    commands.feature_rows(o, [film], tmp/'f', show=False), commands.export_format('a.bin', 'pth')
    commands.show_export(commands.export_model(o, tmp/'w.safetensors'))

def call_search(tmp):
    m,films,file = search_parts.Colours(),tmp/'films',tmp/'clips.sqlite'
    video.write_video(films/'red.mp4', np.full((8, 16, 16, 3), (250, 0, 0), dtype=np.uint8), fps=4)
    mark,name = index_file.stamp(films/'red.mp4'),index_file.digest(str(films/'red.mp4'))
    paths,_ = index_file.clip_files(films)
    reader = search_parts.ClipReader(m, films, paths, 1.)
    parts,_ = list(reader),reader.view(films/'red.mp4', 0, 4)
    vectors = search_parts.clip_vector(search_parts.encode_views(m, [o.view for o in parts]).feature)
    search_parts.from_bytes(blobs := search_parts.to_bytes(vectors))
    search_parts.model_names(m), search_parts.model_view(m), search_parts.thumbnail(np.zeros((8, 9, 3), dtype=np.uint8))
    with index_file.IndexFile(file, write=True) as index:
        index.start(dict(folder='films'), ('folder',))
        with index.change(): index.put('a.mp4', mark, name, [index_file.Clip(0, 4, blobs[0], (3,), b'')], 4, 4.)
        with index.change(): index.adopt('b.mp4', mark, name), index.remove(['a.mp4'])
        [index.clip(i) for rows in index.features() for i,_ in rows], index.files(), index.ask('SELECT 1')
        indexing.index_folder(file, index.about), index.compare(dict(folder='films'), ('folder',))
    indexing.take_away(file), indexing.index_path(str(films))
    repr(indexing.build_index(m, str(films), window=1., show=False).to_dict())
    hits = search.search(m, films, 'red green odd', rerank=2)
    repr(hits), hits[0].span, hits[0].to_dict(), search.clock(7.), search.clock(None)
    search_page.preview(films/'red.mp4', (0, 4)), search_page.found_rows(hits), search_page.found_row(hits[0])
    search_page.save_search(str(tmp/'found.html'), hits), search_page.search_html(hits)
    search_page.search_box(m, films, 'red'), search_page.search_box(m, films, 'red', False, k=1)._repr_html_()
    pair = videotext.VideoText('toy', words.Words.learn(['a red clip']))
    videotext.save_videotext(pair, tmp/'pair.safetensors')
    how = dict(weights=str(tmp/'pair.safetensors'), again=True, show=False)
    search_commands.index_report(films, **how), search_commands.remembered(films/index_file.NAME)
    found = search_commands.find_hits('red', str(films), html=str(tmp/'found.html'), k=1)
    search_commands.show_hits(found), search_commands.hit_rows(found), search_commands.open_pair(tmp/'pair.safetensors')
    for args in (['index', str(films)], ['search', 'red', str(films), '--json']): assert cli.main(args) == 0
    usage_search.seconds('2s'), usage_search.length('whole'), usage.build_parser(usage_search.add_search)

def call_usage(tmp):
    usage.views('4x3'), usage.at_least_one('5'), usage.span('2s'), usage.several('a,b')
    usage.build_parser().parse_args(['weights']), usage_data.splits('train'), usage_data.how_many('all')
    usage.build_parser(usage_data.add_check_data).parse_args(['check-data', 'a'])

def call_demo_and_cli(tmp):
    config = recipe.TrainConfig(epochs=1, batch_size=4)
    demo.demo = functools.partial(demo.demo, clips=dict.fromkeys(('train', 'valid', 'test'), 4), config=config, root=tmp)
    out,listed = tmp/'demo',tmp/'list.csv'
    for _ in range(2): cli.main(['demo', '--out', str(out)]) # the second finds it done
    clip = str(digits.unseen_clip(tmp/'unseen.mp4', 'up'))
    listed.write_text(f'{clip},2\n')
    weights = ['--weights', str(out/'moving_digits.safetensors')]
    (tmp/'names.txt').write_text('a\nb\nc\n')
    (tmp/'eight.txt').write_text('\n'.join('abcdefgh'))
    small = '--size 16 --depth 1 --dim 8 --frames 2 --epochs 1'.split()
    official = ['--weights', str(tmp/'run.pth'), '--frames', '32']
    assert cli.main(['classify', str(listed), *weights]) == 1 # no video
    for args in (['export', *weights, '--out', str(tmp/'run.pth')],
                 ['export', *weights, '--out', str(tmp/'run.safetensors')],
                 ['weights', '--model', 'tiny,small', '--top1', '70'], ['weights', 't16_k400_f8_res224'],
                 ['weights', str(tmp/'run.pth'), str(out/'moving_digits.safetensors')],
                 ['features', clip, *official, '--out', str(tmp/'kept'), '--window', '1s', '--stride', '.5s'],
                 ['classify', clip, *official, '--labels', str(tmp/'eight.txt')],
                 ['classify', clip, *weights], ['classify', clip, '--json', *weights],
                 ['check-data', str(listed), '--decode', '1'],
                 ['evaluate', str(listed), '--views', '2x1', *weights], ['doctor'], ['doctor', '--json'],
                 ['explore', clip, '--out', str(tmp/'page.html'), '--size', '2', '2', '2'],
                 ['train', str(listed), '--out', str(tmp/'run2'), '--classes', str(tmp/'names.txt'), *small]):
        rc = cli.main(args)
        if rc: sys.exit(f'videomamba {" ".join(args)}: exit code {rc}')


def public(module):
    "Functions and classes that a module shows, as (name, names of the functions that count as a call of it)."
    for o in ast.parse(Path(module.__file__).read_text(encoding='utf-8')).body:
        if isinstance(o, ast.FunctionDef) and not o.name.startswith('_'): yield o.name, {o.name}
        if isinstance(o, ast.ClassDef) and not o.name.startswith('_'):
            for m in o.body:
                if isinstance(m, ast.FunctionDef) and m.name[:2] != '__': yield f'{o.name}.{m.name}', {m.name}

def main():
    called = set()
    def note(frame, event, arg):
        if event == 'call' and videomamba_nb.__name__ in frame.f_code.co_filename:
            called.add((Path(frame.f_code.co_filename).stem, frame.f_code.co_name))
    calls = {k.removeprefix('call_'): f for k,f in globals().items() if k.startswith('call_')}
    sys.setprofile(note)
    try:
        with tempfile.TemporaryDirectory() as tmp, redirect_stdout(io.StringIO()):
            for f in calls.values(): f(Path(tmp))
    finally: sys.setprofile(None)
    missing = []
    for path in sorted(Path(videomamba_nb.__file__).parent.glob('[a-z]*.py')):
        module = sys.modules.get(f'videomamba_nb.{path.stem}')
        if module is None: missing.append(path.stem)
        else: missing += [f'{path.stem}.{n}' for n,count in public(module) if not {(path.stem, o) for o in count} & called]
    missing = [o for o in missing if o not in LONG]
    if missing: sys.exit(f'never called in {Path(inspect.getfile(main)).name}: {", ".join(missing)}')

if __name__ == '__main__': main()
